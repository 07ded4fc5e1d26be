//! Who calls: API keys on both listeners.
//!
//! # Security
//! A key is looked up by its id and compared by hash, in the same time whether the id exists or not. Five
//! wrong keys within a minute silence an address for the rest of it, right keys included: a guesser
//! would otherwise see which one was right.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use ipwarden_core::context::Context;
use ipwarden_core::keys::{KeyIdentity, Role};
use ipwarden_core::lists::Actor;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::Identity;
use ipwarden_engine::network::{Network, canonical};
use parking_lot::Mutex;

use crate::error::ApiError;

/// Finds out who asks on the public listener; whoever has no key that counts is anonymous.
pub(crate) fn identify(
    context: &Arc<Context>,
) -> impl Fn(&HttpRequest) -> Option<Identity> + Send + Sync + 'static {
    let keys = context.keys.clone();
    move |request| {
        let identity = keys.verify(bearer(request)?)?;
        Some(Identity::new(identity.actor_name()))
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The caller of a control route.
pub(crate) struct Caller {
    identity: KeyIdentity,
    address: Option<IpAddr>,
}

impl Caller {
    pub(crate) fn actor(&self) -> Actor {
        Actor { name: self.identity.actor_name(), address: self.address }
    }
}

/// A caller whose key has at least this role, as an argument of a handler.
macro_rules! at_least {
    ($(#[$doc:meta])* $name:ident => $role:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Ready<Result<$name, ApiError>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                ready(caller(request, $role).map($name))
            }
        }
    };
}

/// A caller who may read everything but keys, as an argument of a handler.
pub(crate) struct Reader;

impl FromRequest for Reader {
    type Error = ApiError;
    type Future = Ready<Result<Reader, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(caller(request, Role::Reader).map(|_| Reader))
    }
}

/// A caller who has a key that counts, whatever it is for, as an argument of a handler.
pub(crate) struct AnyKey;

impl FromRequest for AnyKey {
    type Error = ApiError;
    type Future = Ready<Result<AnyKey, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(verified(request).map(|_| AnyKey))
    }
}

at_least! {
    /// May change lists and findings.
    Operator => Role::Operator
}
at_least! {
    /// May do everything.
    Admin => Role::Admin
}

fn caller(request: &HttpRequest, needed: Role) -> Result<Caller, ApiError> {
    let caller = verified(request)?;
    match caller.identity.role.includes(needed) {
        true => Ok(caller),
        false => Err(ApiError::Forbidden { needed }),
    }
}

fn verified(request: &HttpRequest) -> Result<Caller, ApiError> {
    let context = request.app_data::<web::Data<Context>>();
    let wrong_keys = request.app_data::<web::Data<WrongKeys>>();
    let (Some(context), Some(wrong_keys)) = (context, wrong_keys) else {
        // Both are data of the control application; a route elsewhere has no callers.
        return Err(ApiError::Unauthorized);
    };
    let address = request.peer_addr().map(|peer| canonical(peer.ip()));
    let now = Moment::now();
    wrong_keys.may_try(address, now)?;
    let key = bearer(request).ok_or(ApiError::Unauthorized)?;
    let Some(identity) = context.keys.verify(key) else {
        wrong_keys.count(address, now);
        return Err(ApiError::Unauthorized);
    };
    Ok(Caller { identity, address })
}

/// Wrong keys of the last minute, by the sender's network.
#[derive(Default)]
pub(crate) struct WrongKeys(Mutex<HashMap<Option<Network>, Tries>>);

struct Tries {
    wrong: u32,
    /// On the steady clock, in microseconds.
    until: u64,
}

const MOST_WRONG: u32 = 5;
const MINUTE: u64 = 60_000_000;
/// Beyond so many senders within a minute all are forgotten: no list of strangers may grow without
/// end, and a key of 256 random bits does not rest on this one.
const MOST_SENDERS: usize = 100_000;

impl WrongKeys {
    fn may_try(&self, address: Option<IpAddr>, now: Moment) -> Result<(), ApiError> {
        match self.0.lock().get(&sender(address)) {
            Some(tries) if tries.wrong >= MOST_WRONG && now.steady < tries.until => {
                let seconds = (tries.until - now.steady).div_ceil(1_000_000);
                Err(ApiError::TooManyWrongKeys { seconds })
            }
            _ => Ok(()),
        }
    }

    fn count(&self, address: Option<IpAddr>, now: Moment) {
        let mut senders = self.0.lock();
        if senders.len() >= MOST_SENDERS {
            senders.retain(|_, tries| now.steady < tries.until);
            if senders.len() >= MOST_SENDERS {
                senders.clear();
            }
        }
        let fresh = Tries { wrong: 0, until: now.steady + MINUTE };
        let tries = senders.entry(sender(address)).or_insert(fresh);
        if now.steady >= tries.until {
            *tries = Tries { wrong: 0, until: now.steady + MINUTE };
        }
        tries.wrong += 1;
    }
}

fn sender(address: Option<IpAddr>) -> Option<Network> {
    address.map(|address| Network::of_client(address, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: 0, steady: seconds * 1_000_000 }
    }

    #[test]
    fn five_wrong_keys_silence_an_address_for_the_rest_of_the_minute() {
        let wrong_keys = WrongKeys::default();
        let (guesser, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        for second in 0..5 {
            assert!(wrong_keys.may_try(guesser, at(second)).is_ok());
            wrong_keys.count(guesser, at(second));
        }
        let refused = wrong_keys.may_try(guesser, at(10));
        assert!(matches!(refused, Err(ApiError::TooManyWrongKeys { seconds: 50 })), "{refused:?}");
        assert!(wrong_keys.may_try(other, at(10)).is_ok());
        assert!(wrong_keys.may_try(guesser, at(60)).is_ok());
        wrong_keys.count(guesser, at(60));
        assert!(wrong_keys.may_try(guesser, at(61)).is_ok());
    }

    #[test]
    fn wrong_keys_from_everywhere_take_bounded_memory() {
        let wrong_keys = WrongKeys::default();
        for sender in 0..=u32::try_from(MOST_SENDERS).unwrap() {
            wrong_keys.count(Some(std::net::Ipv4Addr::from_bits(sender).into()), at(1));
        }
        assert!(wrong_keys.0.lock().len() <= MOST_SENDERS);
    }
}
