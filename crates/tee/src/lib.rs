//! Evidence and sealing keys from the TEE device in front of it, and the simulated TEE behind the same interface.
