//! Guesses of the last minute, by whoever makes them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use ipwarden_engine::clock::Moment;
use ipwarden_engine::network::Network;
use parking_lot::Mutex;

use crate::error::ApiError;

const MINUTE: u64 = 60_000_000;
/// Beyond so many guessers within a minute all are forgotten: no list of strangers may grow without
/// end, and a key of 256 random bits does not rest on this one.
const MOST_GUESSERS: usize = 100_000;

/// Silences whoever was wrong so often within a minute, for the rest of it, right guesses included: a
/// guesser would otherwise see which one was right.
pub(crate) struct Throttle<K> {
    most: u32,
    tries: Mutex<HashMap<K, Tries>>,
}

struct Tries {
    wrong: u32,
    /// On the steady clock, in microseconds.
    until: u64,
}

impl<K: Eq + Hash> Throttle<K> {
    /// Nobody may be wrong more often than `most` times a minute.
    pub(crate) fn new(most: u32) -> Throttle<K> {
        Throttle { most, tries: Mutex::default() }
    }

    /// Says whether somebody may guess now.
    ///
    /// # Errors
    /// [`ApiError::TooManyGuesses`].
    pub(crate) fn may_try(&self, who: &K, now: Moment) -> Result<(), ApiError> {
        match self.tries.lock().get(who) {
            Some(tries) if tries.wrong >= self.most && now.steady < tries.until => {
                let seconds = (tries.until - now.steady).div_ceil(1_000_000);
                Err(ApiError::TooManyGuesses { seconds })
            }
            _ => Ok(()),
        }
    }

    /// Counts a wrong guess, or one that takes so long that others could be made meanwhile.
    pub(crate) fn count(&self, who: K, now: Moment) {
        let mut guessers = self.tries.lock();
        if guessers.len() >= MOST_GUESSERS {
            guessers.retain(|_, tries| now.steady < tries.until);
            if guessers.len() >= MOST_GUESSERS {
                guessers.clear();
            }
        }
        let fresh = Tries { wrong: 0, until: now.steady + MINUTE };
        let tries = guessers.entry(who).or_insert(fresh);
        if now.steady >= tries.until {
            *tries = Tries { wrong: 0, until: now.steady + MINUTE };
        }
        tries.wrong += 1;
    }

    /// Takes a guess back that was right.
    pub(crate) fn take_back(&self, who: &K) {
        if let Some(tries) = self.tries.lock().get_mut(who) {
            tries.wrong = tries.wrong.saturating_sub(1);
        }
    }
}

/// Whoever sends from an address, with his neighbours where one subscriber has many addresses.
pub(crate) fn sender(address: Option<IpAddr>) -> Option<Network> {
    address.map(|address| Network::of_client(address, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: 0, steady: seconds * 1_000_000 }
    }

    #[test]
    fn five_wrong_guesses_silence_an_address_for_the_rest_of_the_minute() {
        let throttle = Throttle::new(5);
        let of = |text: &str| sender(text.parse().ok());
        let (guesser, other) = (of("192.0.2.1"), of("192.0.2.2"));
        for second in 0..5 {
            assert!(throttle.may_try(&guesser, at(second)).is_ok());
            throttle.count(guesser, at(second));
        }
        let refused = throttle.may_try(&guesser, at(10));
        assert!(matches!(refused, Err(ApiError::TooManyGuesses { seconds: 50 })), "{refused:?}");
        assert!(throttle.may_try(&other, at(10)).is_ok());
        assert!(throttle.may_try(&guesser, at(60)).is_ok());
        throttle.count(guesser, at(60));
        assert!(throttle.may_try(&guesser, at(61)).is_ok());
    }

    #[test]
    fn who_was_right_has_guessed_nothing() {
        let throttle = Throttle::new(2);
        for _ in 0..10 {
            assert!(throttle.may_try(&"anna", at(0)).is_ok());
            throttle.count("anna", at(0));
            throttle.take_back(&"anna");
        }
        throttle.count("anna", at(0));
        throttle.count("anna", at(0));
        assert!(throttle.may_try(&"anna", at(0)).is_err());
    }

    #[test]
    fn wrong_guesses_from_everywhere_take_bounded_memory() {
        let throttle = Throttle::new(5);
        for guesser in 0..=MOST_GUESSERS {
            throttle.count(guesser, at(1));
        }
        assert!(throttle.tries.lock().len() <= MOST_GUESSERS);
    }
}
