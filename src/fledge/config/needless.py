"""Names of other tools without an option of their own, and why: a table that `answer.py` reads."""

_NEEDLESS = {
    "every step is logged, in the run folder's events.jsonl": (
        "disable_tqdm include_effective_tokens_per_second include_num_input_tokens_seen "
        "include_tokens_per_second log_every_n_steps log_interval log_level log_level_replica "
        "log_on_each_node log_peak_memory_stats logging logging_dir logging_first_step logging_nan_inf_filter "
        "logging_steps logging_strategy plot_loss print_param_status steps_per_report"
    ),
    "the base's config.json says what kind of model it is": (
        "auto_mapping base_model_config is_falcon_derived_model is_llama_derived_model "
        "is_mistral_derived_model is_qwen_derived_model model_class model_type num_labels task_type "
        "tokenizer_type"
    ),
    "the tokenizer that comes with the base is used": (
        "processing_class tokenizer tokenizer_config tokenizer_legacy tokenizer_name tokenizer_name_or_path "
        "tokenizer_use_fast use_fast_tokenizer"
    ),
    "the tokenizer's own special tokens are used; data.new_special_tokens adds others": (
        "add_bos_token add_eos_token bos_token eos_token pad_token pad_token_id "
        "resize_token_embeddings_to_32x resize_vocab special_tokens unk_token"
    ),
    "the optimiser is AdamW; its options are train.adam_betas, train.adam_eps and train.weight_decay": (
        "adam_beta3 adam_epsilon2 apollo_layerwise apollo_rank apollo_scale apollo_target "
        "apollo_update_interval badam_mode badam_update_ratio foreach fused galore_layerwise galore_rank "
        "galore_scale galore_target galore_target_modules galore_update_interval lr_groups optim optim_args "
        "optim_target_modules optimizer optimizer_config optimizer_in_bwd optimizer_type use_adam_mini "
        "use_apollo use_badam use_galore use_lomo use_muon"
    ),
    "a checkpoint is saved every train.save_every_steps steps, and after the last": (
        "checkpointer enable_async_checkpointing enable_jit_checkpoint save_adapter_weights_only save_epochs "
        "save_final save_last_epoch_only save_on_each_node save_only_model save_safetensors save_strategy "
        "saves_per_epoch"
    ),
    "where data.validation is given, it is measured every evaluate.every_steps steps, and after the last": (
        "batch_eval_metrics batch_size_val bf16_full_eval compute_accuracy do_bench_eval do_causal_lm_eval "
        "do_eval eval_accumulation_steps eval_batch_size eval_causal_lm_metrics eval_delay "
        "eval_do_concat_batches eval_on_each_dataset eval_on_start eval_strategy eval_use_gather_object "
        "evals_per_epoch evaluation_strategy fp16_full_eval include_for_metrics per_device_eval_batch_size "
        "prediction_loss_only"
    ),
    "the number of processes is asked for on the command line: fledge train RECIPE --nproc N": (
        "accelerator_config data_parallel_dim data_parallel_shard_dim ddp ddp_backend ddp_broadcast_buffers "
        "ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout devices local_rank nproc "
        "num_devices num_gpus num_nodes parallelism_config ray_num_workers strategy world_size"
    ),
    "blocks that do not fit a GPU stream from the host's memory (model.placement: auto)": (
        "cpu_offload deepspeed fsdp fsdp_config fsdp_final_state_dict_type fsdp_version gpu_memory_limit "
        "lora_on_cpu low_cpu_mem_usage max_memory offload_folder qlora_sharded_model_loading"
    ),
    "train.lr_scheduler falls to zero, or is constant": (
        "cosine_constant_lr_ratio cosine_min_lr_ratio lr_scheduler_kwargs min_lr"
    ),
    "train.engine and train.kernels take the fastest code that runs here by default": (
        "compile compile_optimizer_step cut_cross_entropy enable_liger_kernel flash_attn_cross_entropy "
        "flash_attn_fuse_mlp flash_attn_fuse_qkv flash_attn_rms_norm liger_kernel liger_kernel_config "
        "lora_kernels lora_mlp_kernel lora_o_kernel lora_qkv_kernel plugins s2_attention tf32 torch_compile "
        "torch_compile_backend torch_compile_mode unsloth_cross_entropy_loss unsloth_lora_mlp unsloth_lora_o "
        "unsloth_lora_qkv unsloth_rms_norm unsloth_rope unsloth_tiled_mlp use_liger_kernel use_unsloth "
        "xformers xformers_attention"
    ),
    "reading and tokenising need no setting: what is prepared is kept in a cache": (
        "buffer_size cache_dir data_shared_file_system dataloader_drop_last dataloader_in_order "
        "dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers "
        "dataloader_pin_memory dataloader_prefetch_factor dataset_batch_size dataset_keep_in_memory "
        "dataset_kwargs dataset_num_proc dataset_prepared_path dataset_processes dataset_shard_idx "
        "dataset_shard_num dataset_shards ds_type label_names length_column_name num_workers overwrite_cache "
        "preprocess_shards preprocessing_batch_size preprocessing_num_workers remove_unused_columns shards "
        "skip_prepare_dataset streaming tokenized_path"
    ),
    "with data.packing nothing is padded, and padding is never trained": (
        "eval_packing eval_sample_packing group_by_length pad_to_max_length pad_to_multiple_of "
        "pad_to_sequence_len padding padding_free padding_side sample_packing_eff_est train_sampling_strategy"
    ),
    "the best adapter by validation loss is kept beside the last one: fledge generate RUN --which best": (
        "early_stopping_threshold greater_is_better load_best_model_at_end metric_for_best_model"
    ),
    "`fledge push RUN REPO` sends a run to a hub": (
        "hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy push_dataset_to_hub push_to_hub"
    ),
    "a token is read from HF_TOKEN, never from a recipe": (
        "hf_hub_token hf_use_auth_token hub_token ms_hub_token use_auth_token"
    ),
    "lora.init_from starts from an adapter; the same command goes on with a run that was stopped": (
        "auto_resume_from_checkpoints checkpoint_files create_new_adapter "
        "ignore_data_skip is_trainable overwrite_output_dir recipe_checkpoint "
        "restore_callback_states_from_checkpoint resume resume_adapter_file resume_from_checkpoint"
    ),
    "what wandb has of its own is set by wandb's environment variables; output.trackers: [wandb] turns it on": (
        "wandb_entity wandb_log_model wandb_mode wandb_run_id wandb_watch"
    ),
    "lora.target_modules names the layers: all-linear, a list, or a regular expression": (
        "apply_lora_to_mlp apply_lora_to_output finetune_attention_modules finetune_language_layers "
        "finetune_mlp_modules finetune_vision_layers freeze_extra_modules freeze_language_model "
        "freeze_multi_modal_projector freeze_trainable_layers freeze_trainable_modules freeze_vision_tower "
        "layer_replication layers_pattern layers_to_transform lora_attn_modules lora_head lora_key "
        "lora_layers lora_mlp lora_projection lora_query lora_target_parameters lora_value num_layers "
        "peft_layer_replication peft_layers_pattern peft_layers_to_transform rank_pattern target_parameters"
    ),
    "give a file of fewer rows, or write train.max_steps": "max_samples max_train_samples",
    "every layer has the same lora.lora_alpha": "alpha_pattern",
    "biases are not trained": "bias lora_bias",
    "model.quantization: nf4 says all of it (docs/quantization.md)": (
        "bnb_4bit_quant_storage bnb_4bit_use_double_quant double_quantization use_bnb_nested_quant"
    ),
    "rows are put together by Fledge; data.packing says how": "data_collator",
    "`fledge train RECIPE` trains": "do_train",
    "`fledge evaluate RUN` measures a run": "do_predict",
    "it is found out from the base": "fan_in_fan_out lora_fan_in_fan_out",
    "train.gradient_checkpointing says all of it": (
        "activation_checkpointing_kwargs gradient_checkpointing_kwargs use_reentrant"
    ),
    "a recipe trains; `fledge generate RUN` answers": (
        "do_sample fast_inference gpu_memory_utilization infer_backend inference_mode repetition_penalty "
        "temperature top_k top_p vllm"
    ),
    "each source of a list in data.train has a weight": "interleave_probs mix_strategy",
    "labels are not smoothed: the loss is that of the rows' own tokens": "label_smoothing_factor",
    "a row is one text, which data.max_length bounds": "max_prompt_len max_prompt_length",
    "noise on embeddings is not supported": "neftune_noise_alpha",
    "a run is named by its folder, output.dir, and in wandb by output.wandb_name": "run_name",
    "the assistant's turns are trained; data.train_on: all trains every role's": "roles_to_train",
    "an answer is always trained with the token that ends it": "eot_tokens train_on_eos train_on_eot",
    "the base's config.json says it": "tie_word_embeddings",
    "lora.modules_to_save names modules that are trained whole": "unfrozen_parameters",
    "it is off in training and on when answers are generated": "use_cache use_kv_cache",
    "a recipe always trains a LoRA adapter": (
        "fine_tune_type full_finetune full_finetuning peft_method peft_type train_from_scratch tuning_type "
        "use_llama_pro use_lora use_peft"
    ),
    "a recipe trains on rows as they are (sft); there is no preference training": (
        "beta dpo_beta dpo_use_weighting kto_chosen_weight kto_rejected_weight orpo_alpha pref_beta pref_ftx "
        "pref_loss ref_model reward_model rl simpo_gamma stage task trl"
    ),
    "train.global_batch_size takes its place: the product of rows per device, devices and this number": (
        "accumulate_grad_batches grad_accum grad_accumulation_steps gradient_accumulation "
        "gradient_accumulation_iters gradient_accumulation_steps"
    ),
    "the loss is the cross entropy of the supervised tokens, summed and divided by their number": (
        "average_tokens_across_devices loss loss_type use_asft_loss use_dft_loss use_eaft_loss"
    ),
    "everything that is trained has train.learning_rate; lora.loraplus_lr_ratio lets B learn faster": (
        "embedding_learning_rate embedding_lr embedding_lr_scale lora_plus_lr_embedding loraplus_lr_embedding"
    ),
    "the adapter is not merged during training (there is no ReLoRA)": (
        "relora relora_cpu_offload relora_prune_ratio relora_steps relora_warmup_steps"
    ),
    "of the variants of LoRA there are lora.use_rslora, lora.use_dora and lora.init_lora_weights": (
        "alora_invocation_tokens arrow_config corda_config eva_config kasa_config loftq_config "
        "lora_bias_config lora_ga_config megatron_config megatron_core monteclora_config qalora_group_size "
        "use_bdlora use_qalora velora_config"
    ),
    "lora.r is the rank": "max_lora_rank",
    "train.max_steps counts the steps of the whole training, train.num_epochs the passes": "max_steps_per_epoch",
    "data.packing puts whole rows together; none is cut for it": (
        "multipack_real_batches packing_strategy sample_packing_bin_size sample_packing_group_size "
        "sample_packing_sequentially"
    ),
    "a message's role is read from role or from, and human and gpt are known names": (
        "message_field_role message_property_mappings role_mapping roles"
    ),
    "a message's text is read from content, value or text": "message_field_content",
    "answers are generated and kept where evaluate.rouge or evaluate.exact_match is true": (
        "eval_table_max_new_tokens eval_table_size"
    ),
    "a row is computed whole, on one device": (
        "context_parallel_degree context_parallel_size custom_sharded_layers sequence_parallel_degree "
        "tensor_parallel_dim tensor_parallel_plan tensor_parallel_size"
    ),
    "a key that no recipe knows is always refused": "strict",
    "the run folder's events.jsonl has every step, and errors say where they arose": "debug",
    "the base's config.json says how positions are scaled": "rope_scaling rope_theta",
    "every token sees all of its row that came before it": "shift_attn",
    "model.dtype is the base's number format, and the adapter is trained in float32": (
        "upcast_layernorm upcast_lmhead_output"
    ),
    "a second source has a split of its own: data.validation takes {path: ..., format: ..., split: ...}": (
        "dataset_test_split eval_split test_split"
    ),
    "options of the base are in the section model: model.dtype, model.attention, model.revision": (
        "model_init_kwargs model_kwargs"
    ),
    "tokens of data.new_tokens are trained, and what lora.modules_to_save names (whole embeddings)": (
        "ensure_weight_tying trainable_token_indices"
    ),
    "output.trackers knows tensorboard and wandb": (
        "comet_project_name metric_logger mlflow_experiment_name mlflow_tracking_uri swanlab_api_key "
        "swanlab_mode swanlab_project swanlab_run_name trackio_bucket_id trackio_space_id "
        "trackio_static_space_id use_comet use_mlflow use_swanlab use_trackio"
    ),
    "there is no profiler": "profiler profiler_steps",
    "the same recipe on the same machine gives the same bits": "full_determinism",
    "evaluate.max_rows bounds the rows that are measured": "test_batches val_batches",
    "lora.init_lora_weights: pissa says all of it; the weights are decomposed exactly": "pissa_convert pissa_iter",
    "micro-batches are made to fit the memory that is measured (train.micro_batch_tokens: auto)": (
        "auto_find_batch_size clear_cache_threshold skip_memory_metrics torch_empty_cache_steps"
    ),
    "train.gradient_checkpointing saves the memory of activations": (
        "activation_offloading enable_activation_offloading use_reentrant_gc"
    ),
    "it concerns peft's own code alone": "peft_version runtime_config",
    "lora.target_modules names the layers; a regular expression leaves others out": "exclude_modules",
}

NEEDLESS = {name: reason for reason, names in _NEEDLESS.items() for name in names.split()}
"""Names without an option of their own: they are to be removed, and why."""
