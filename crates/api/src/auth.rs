//! Who calls: API keys on both listeners, and sessions in cookies, each on the listener it was opened on.
//!
//! # Security
//! A key is looked up by its id and compared by hash, in the same time whether the id exists or not. Five
//! wrong keys within a minute silence an address for the rest of it, right keys included: a guesser
//! would otherwise see which one was right.

pub(crate) mod cookie;
pub(crate) mod door;
mod throttle;

use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use ipwarden_core::context::Context;
use ipwarden_core::keys::{KeyIdentity, Role};
use ipwarden_core::lists::Actor;
use ipwarden_core::sessions::Session;
use ipwarden_engine::clock::Moment;
use ipwarden_engine::guard::Identity;
use ipwarden_engine::network::Network;

use self::door::{Door, address};
use self::throttle::{Throttle, sender};
use crate::error::ApiError;

/// Wrong keys from one address, a minute.
const WRONG_KEYS: u32 = 5;

/// Finds out who asks on the public listener; whoever shows nothing that counts is anonymous.
pub(crate) fn identify(
    context: &Arc<Context>,
    door: &web::Data<Door>,
) -> impl Fn(&HttpRequest) -> Option<Identity> + Send + Sync + 'static {
    let (keys, door) = (context.keys.clone(), door.clone());
    move |request| {
        let name = match request.headers().contains_key(AUTHORIZATION) {
            true => keys.verify(bearer(request)?)?.actor_name(),
            false => cookie::session(request, &door)?.person.actor_name(),
        };
        Some(Identity::new(name))
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The caller of a control route.
pub(crate) struct Caller {
    shown: Shown,
    address: Option<IpAddr>,
}

/// By what he is known.
enum Shown {
    Key(KeyIdentity),
    Session(Box<Session>),
}

impl Caller {
    pub(crate) fn actor(&self) -> Actor {
        let name = match &self.shown {
            Shown::Key(key) => key.actor_name(),
            Shown::Session(session) => session.person.actor_name(),
        };
        Actor { name, address: self.address }
    }

    pub(crate) fn role(&self) -> Role {
        match &self.shown {
            Shown::Key(key) => key.role,
            Shown::Session(session) => session.person.role,
        }
    }

    /// His session, if he has shown no key.
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.shown {
            Shown::Key(_) => None,
            Shown::Session(session) => Some(session),
        }
    }

    /// Whether what he has shown still counts: for what goes on for long.
    pub(crate) fn counts(&self, context: &Context) -> bool {
        match &self.shown {
            Shown::Key(key) => context.keys.holds(key),
            Shown::Session(session) => {
                context.users.holds(&session.person) && crate::routes::now() < session.expires_at
            }
        }
    }
}

/// A caller who has at least this role, as an argument of a handler.
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

/// A caller who counts, whatever he may, as an argument of a handler.
pub(crate) struct Anybody(pub(crate) Caller);

impl FromRequest for Anybody {
    type Error = ApiError;
    type Future = Ready<Result<Anybody, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(verified(request).map(Anybody))
    }
}

at_least! {
    /// May read everything but keys and users.
    Reader => Role::Reader
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
    match caller.role().includes(needed) {
        true => Ok(caller),
        false => Err(ApiError::Forbidden { needed }),
    }
}

fn verified(request: &HttpRequest) -> Result<Caller, ApiError> {
    let context = request.app_data::<web::Data<Context>>();
    let wrong_keys = request.app_data::<web::Data<WrongKeys>>();
    let door = request.app_data::<web::Data<Door>>();
    let (Some(context), Some(wrong_keys), Some(door)) = (context, wrong_keys, door) else {
        // All are data of the control application; a route elsewhere has no callers.
        return Err(ApiError::Unauthorized);
    };
    let address = address(request);
    if !request.headers().contains_key(AUTHORIZATION) {
        let session = cookie::session(request, door).ok_or(ApiError::Unauthorized);
        // Who is silenced learns nothing by leaving his key away.
        let (now, sender) = (Moment::now(), sender(address));
        let session =
            session.or_else(|error| wrong_keys.0.may_try(&sender, now).and(Err(error)))?;
        if !request.method().is_safe() {
            cookie::meant(request, &session)?;
        }
        return Ok(Caller { shown: Shown::Session(Box::new(session)), address });
    }
    let identity = holder(context, wrong_keys, address, bearer(request))?;
    Ok(Caller { shown: Shown::Key(identity), address })
}

/// Who holds the key that a bouncer sends, wherever it sends it.
pub(crate) fn key_of_bouncer(
    request: &HttpRequest,
    key: Option<&str>,
) -> Result<KeyIdentity, ApiError> {
    let context = request.app_data::<web::Data<Context>>();
    let wrong_keys = request.app_data::<web::Data<WrongKeys>>();
    let (Some(context), Some(wrong_keys)) = (context, wrong_keys) else {
        // Both are data of the gate; a route elsewhere has no bouncers.
        return Err(ApiError::Unauthorized);
    };
    let identity = holder(context, wrong_keys, address(request), key)?;
    match identity.role.includes(Role::Bouncer) {
        true => Ok(identity),
        false => Err(ApiError::Forbidden { needed: Role::Bouncer }),
    }
}

/// Who holds this key, which somebody at that address has shown.
fn holder(
    context: &Context,
    wrong_keys: &WrongKeys,
    address: Option<IpAddr>,
    key: Option<&str>,
) -> Result<KeyIdentity, ApiError> {
    let (now, sender) = (Moment::now(), sender(address));
    wrong_keys.0.may_try(&sender, now)?;
    let identity = context.keys.verify(key.ok_or(ApiError::Unauthorized)?);
    identity.ok_or_else(|| {
        wrong_keys.0.count(sender, now);
        ApiError::Unauthorized
    })
}

/// Wrong keys of the last minute, by the sender's network.
pub(crate) struct WrongKeys(Throttle<Option<Network>>);

impl Default for WrongKeys {
    fn default() -> WrongKeys {
        WrongKeys(Throttle::new(WRONG_KEYS))
    }
}
