#![doc = "The static agent binary, built from source and embedded."]
