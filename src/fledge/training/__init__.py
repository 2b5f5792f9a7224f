"""The loop: one step, many steps, and the state that a resume needs."""
