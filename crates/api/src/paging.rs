//! Pages of listings, and the positions between them.
//!
//! A position is a row, not a number of rows, so that pages stay right while rows arrive. It is signed
//! together with the listing it belongs to, path and filters, and is refused in any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipwarden_core::context::Context;
use ipwarden_core::db::DbError;
use ipwarden_core::signing::Signer;
use serde::Serialize;

use crate::error::ApiError;

pub(crate) fn not_ours() -> ApiError {
    let detail = "this is no position that a page of this listing, with these filters, named";
    ApiError::Invalid { field: "cursor", detail: detail.to_owned() }
}

/// Without the store nobody knows what was signed, and there are no rows either.
pub(crate) fn not_yet() -> ApiError {
    DbError::Unreachable("the key that signs positions is not known yet".to_owned()).into()
}

/// Which part of a listing shall be shown.
pub(crate) struct Page<const N: usize> {
    /// Behind which row.
    pub(crate) after: Option<[i64; N]>,
    /// How many rows.
    pub(crate) limit: i64,
    seal: Option<Seal>,
}

impl<const N: usize> Page<N> {
    pub(crate) fn new(after: Option<[i64; N]>, limit: i64, seal: Option<Seal>) -> Page<N> {
        Page { after, limit, seal }
    }

    /// The page of these rows; if it is full there may be another behind it.
    pub(crate) fn of<T>(
        self,
        items: Vec<T>,
        position: impl Fn(&T) -> [i64; N],
    ) -> Result<Items<T>, ApiError> {
        let full = i64::try_from(items.len()).is_ok_and(|rows| rows == self.limit);
        let next = match (items.last().filter(|_| full), self.seal) {
            (None, _) => None,
            (Some(_), None) => return Err(not_yet()),
            (Some(last), Some(seal)) => Some(seal.close(position(last)).ok_or_else(not_yet)?),
        };
        Ok(Items { items, next })
    }
}

/// A page of anything; `next` is the `cursor` of the page behind it.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

/// Makes positions of one listing that nobody else can make, and that count for no other listing.
#[derive(Clone)]
pub(crate) struct Seal {
    signer: Arc<Signer>,
    /// Its path and filters.
    listing: String,
}

/// So much of a signature is enough for what leads nowhere but to another row.
const SIGNATURE: usize = 16;

impl Seal {
    pub(crate) fn of(request: &HttpRequest, query: &BTreeMap<String, String>) -> Option<Seal> {
        let context = request.app_data::<web::Data<Context>>()?;
        if !context.signer.is_ready() {
            return None;
        }
        let filters = query.iter().filter(|(name, _)| *name != "cursor" && *name != "limit");
        let listing = format!("{} {:?}", request.path(), filters.collect::<Vec<_>>());
        Some(Seal { signer: context.signer.clone(), listing })
    }

    /// A position as it is handed out; `None` as long as the store has not told the key.
    pub(crate) fn close<const N: usize>(&self, position: [i64; N]) -> Option<String> {
        let mut bytes = position.map(i64::to_be_bytes).concat();
        let signature = self.signer.sign("cursor", &self.signed(&bytes))?;
        bytes.extend_from_slice(&signature[..SIGNATURE]);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn open<const N: usize>(&self, text: &str) -> Option<[i64; N]> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (position, signature) = bytes.split_at_checked(N * 8)?;
        let is_ours = signature.len() == SIGNATURE
            && self.signer.verifies("cursor", &self.signed(position), signature);
        if !is_ours {
            return None;
        }
        let (parts, _) = position.as_chunks::<8>();
        parts.iter().copied().map(i64::from_be_bytes).collect::<Vec<_>>().try_into().ok()
    }

    fn signed(&self, position: &[u8]) -> Vec<u8> {
        [position, self.listing.as_bytes()].concat()
    }
}
