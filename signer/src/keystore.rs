//! Where private keys are. Signs the digests of a charged plan, nothing else; every signature is low-S and verified.
