//! One listener as people come in by it: what was opened on one never counts on the other.

use std::net::IpAddr;

use actix_web::HttpRequest;
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::{DbError, users as rows};
use ipwarden_core::lists::{self, Actor};
use ipwarden_core::sessions::{Audience, Session, Sessions};
use ipwarden_core::users::{self, LONGEST, Person};
use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::{Network, canonical};

use super::throttle::{Throttle, sender};
use crate::error::ApiError;
use crate::routes::now;

/// Wrong passwords from one address, a minute.
const OF_AN_ADDRESS: u32 = 5;
/// Wrong passwords for one name from everywhere, a minute.
const OF_A_NAME: u32 = 10;

/// What a listener knows of those who sign in on it.
pub(crate) struct Door {
    pub(crate) audience: Audience,
    pub(crate) sessions: Sessions,
    addresses: Throttle<Option<Network>>,
    /// Whoever guesses on the public listener keeps nobody from the other one.
    names: Throttle<String>,
}

impl Door {
    pub(crate) fn of(context: &Context, audience: Audience) -> Door {
        Door {
            audience,
            sessions: context.sessions.clone(),
            addresses: Throttle::new(OF_AN_ADDRESS),
            names: Throttle::new(OF_A_NAME),
        }
    }

    /// Opens a session for whoever knows the password. Returns its text with it.
    ///
    /// What is wrong is not told, neither by the answer nor by the time it takes.
    pub(crate) async fn sign_in(
        &self,
        context: &Context,
        address: Option<IpAddr>,
        name: &str,
        password: String,
    ) -> Result<(String, Session), ApiError> {
        let (moment, who) = (Moment::now(), sender(address));
        let named = name.chars().take(100).collect::<String>();
        self.addresses.may_try(&who, moment)?;
        self.names.may_try(&named, moment)?;
        // At once: others could be tried while this one is looked at.
        self.addresses.count(who, moment);
        self.names.count(named.clone(), moment);
        // For a name that cannot be one the store is asked all the same.
        let wanted = users::fit_name(name).unwrap_or_default();
        let known = context
            .db
            .run(move |conn| async move { rows::find(conn, &wanted).await }.boxed())
            .await;
        let known = known.inspect_err(|_| self.take_back(&who, &named))?;
        let stored = known.as_ref().map(|row| row.password_hash.clone());
        let password = if password.len() > LONGEST { String::new() } else { password };
        let verified = context.passwords.verify(password, stored).await;
        let is_right = verified.map_err(|_| {
            self.take_back(&who, &named);
            ApiError::Busy { detail: "Too many passwords are being looked at. Try again." }
        })?;
        let person = known.filter(|_| is_right).as_ref().and_then(Person::of);
        let person = person.ok_or(ApiError::WrongPassword)?;
        self.take_back(&who, &named);
        self.admit(context, person, address).await
    }

    fn take_back(&self, who: &Option<Network>, name: &String) {
        self.addresses.take_back(who);
        self.names.take_back(name);
    }

    async fn admit(
        &self,
        context: &Context,
        person: Person,
        address: Option<IpAddr>,
    ) -> Result<(String, Session), ApiError> {
        let (name, now) = (person.name.clone(), now());
        let actor = Actor { name: person.actor_name(), address };
        let noted = context.db.transaction(move |conn| {
            async move {
                let at = lists::lock(conn, now).await?;
                users::signed_in(conn, &name, &actor, at).await
            }
            .boxed()
        });
        noted.await?;
        if !context.users.holds(&person) {
            // He was added or changed just now, and this process has not heard of it yet.
            context.users.reload(&context.db).await?;
        }
        let away =
            || DbError::Unreachable("the key that signs sessions is not known yet".to_owned());
        Ok(self.sessions.open(self.audience, person, now).ok_or_else(away)?)
    }

    /// Ends all sessions of a person, everywhere.
    pub(crate) async fn sign_out(
        &self,
        context: &Context,
        person: Person,
        address: Option<IpAddr>,
    ) -> Result<(), ApiError> {
        let actor = Actor { name: person.actor_name(), address };
        let now = now();
        let version = context.db.transaction(move |conn| {
            async move {
                let at = lists::lock(conn, now).await?;
                users::sign_out_in(conn, &person.name, &actor, at).await
            }
            .boxed()
        });
        let version = version.await?;
        // Here at once, elsewhere as any change.
        context.users.reload(&context.db).await?;
        context.announce(version);
        Ok(())
    }
}

/// Where a request comes from: by the guard where there is one.
pub(crate) fn address(request: &HttpRequest) -> Option<IpAddr> {
    match ipwarden_guard::admission(request) {
        Some(admission) => Some(admission.client.ip),
        None => request.peer_addr().map(|peer| canonical(peer.ip())),
    }
}
