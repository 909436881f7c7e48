//! Starts enclaves from the untrusted outside: plans the root, launches the agent, relays.
