// SPDX-License-Identifier: Apache-2.0
//! What an object shows in the moment in which what it is about has gone and it has not.
//!
//! Who asks for all objects at once gets an error for all of them if one has nothing to show.

use std::sync::{Mutex, PoisonError};
use zbus::fdo;

/// What was last known.
#[derive(Debug)]
pub(super) struct LastKnown<T>(Mutex<Option<T>>);

impl<T: Clone> LastKnown<T> {
    /// With what was known at first.
    pub(super) const fn new(first: Option<T>) -> Self {
        Self(Mutex::new(first))
    }

    /// What is known now, or else what was last.
    pub(super) fn or_last(&self, now: fdo::Result<T>) -> fdo::Result<T> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match now {
            Ok(now) => {
                *last = Some(now.clone());
                Ok(now)
            }
            Err(error) => last.clone().ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_last_known_is_shown_when_nothing_is() {
        let gone = || Err(fdo::Error::UnknownObject(String::new()));
        let shown = LastKnown::new(None);
        assert!(shown.or_last(gone()).is_err());
        assert_eq!(shown.or_last(Ok(1)).unwrap(), 1);
        assert_eq!(shown.or_last(Ok(2)).unwrap(), 2);
        assert_eq!(shown.or_last(gone()).unwrap(), 2);
        assert_eq!(LastKnown::new(Some(3)).or_last(gone()).unwrap(), 3);
    }
}
