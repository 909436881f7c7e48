//! TEE evidence of any vendor into claims, or the exact reason why not.
