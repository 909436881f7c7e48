//! The agent: measures, proves, fetches secrets, confines and runs the program, inside the enclave.
