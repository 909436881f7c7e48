//! Secrets to attested workloads by policy, each release receipted in the ledger.
