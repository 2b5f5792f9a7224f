"""The version of Fledge; the distribution on the package index is called fledge-lora, for `fledge` is a stranger's."""

VERSION = "0.1.0"
DISTRIBUTION = "fledge-lora"
