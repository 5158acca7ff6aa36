// SPDX-License-Identifier: Apache-2.0

//! What is said of a medium that fails: once, however often a guest tries.

use std::fmt::Display;

/// Whether a medium fails.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    is_known: bool,
}

impl Trouble {
    /// It has failed. Whether that is news.
    pub(crate) fn met(&mut self, what: &dyn Display) -> bool {
        let news = !std::mem::replace(&mut self.is_known, true);
        let level = if news {
            log::Level::Error
        } else {
            log::Level::Debug
        };
        log::log!(level, "{what}");
        news
    }

    /// It has taken a change.
    pub(crate) fn over(&mut self) {
        if std::mem::take(&mut self.is_known) {
            log::info!("the medium works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_that_fails_is_news_once_until_it_works_again() {
        let mut trouble = Trouble::default();
        assert!(trouble.met(&"no space"));
        assert!(!trouble.met(&"no space"));
        trouble.over();
        assert!(trouble.met(&"no space"));
    }
}
