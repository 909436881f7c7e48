//! Release keys that live in an enclave and sign on the word of a quorum.
