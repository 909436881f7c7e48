//! AMD's own root and intermediate certificates, for convenience.
//!
//! Nothing is trusted for being here. The root comes from the trust file alone; this module tells
//! whether that root is AMD's, and supplies the intermediate a host left out of its table, which
//! must still verify under the trusted root. Origin: `amd/SOURCE.txt`.

use super::report::Product;

/// AMD's root certificate (ARK) of a processor family, DER.
pub const fn ark(product: Product) -> &'static [u8] {
    match product {
        Product::Milan => include_bytes!("amd/milan-ark.der"),
        Product::Genoa => include_bytes!("amd/genoa-ark.der"),
        Product::Turin => include_bytes!("amd/turin-ark.der"),
    }
}

/// AMD's intermediate certificate for chip keys (ASK, signs VCEKs), DER.
pub const fn ask(product: Product) -> &'static [u8] {
    match product {
        Product::Milan => include_bytes!("amd/milan-ask.der"),
        Product::Genoa => include_bytes!("amd/genoa-ask.der"),
        Product::Turin => include_bytes!("amd/turin-ask.der"),
    }
}

/// AMD's intermediate certificate for cloud providers' keys (ASVK, signs VLEKs), DER.
pub const fn asvk(product: Product) -> &'static [u8] {
    match product {
        Product::Milan => include_bytes!("amd/milan-asvk.der"),
        Product::Genoa => include_bytes!("amd/genoa-asvk.der"),
        Product::Turin => include_bytes!("amd/turin-asvk.der"),
    }
}

/// The processor family whose AMD root this certificate is.
pub fn product_of_root(der: &[u8]) -> Option<Product> {
    PRODUCTS.into_iter().find(|p| ark(*p) == der)
}

/// Every family there is.
pub const PRODUCTS: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];
