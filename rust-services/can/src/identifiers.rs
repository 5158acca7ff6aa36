// SPDX-License-Identifier: Apache-2.0

//! Sets of identifiers, as policy names them.
//!
//! | text | what |
//! | --- | --- |
//! | `any`, `standard`, `extended` | all of them, all of a format |
//! | `123` | one; eight digits name an extended one: `18FEF100` |
//! | `120-12f` | a range |
//! | `120:7f0` | those that are equal to the first where the second has ones |

use crate::frame::{EXTENDED_MASK, Id, STANDARD_MASK};

/// Identifiers of one format that are equal where a mask has ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pattern {
    /// Of 29 bits, not 11.
    pub extended: bool,
    /// What they are equal to.
    pub id: u32,
    /// Where.
    pub mask: u32,
}

impl Pattern {
    const fn matches(self, id: Id) -> bool {
        self.extended == id.is_extended() && (self.id ^ id.number()) & self.mask == 0
    }
}

/// A text that names no identifiers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} names no identifiers: {why}")]
pub struct NotIdentifiers {
    text: String,
    why: &'static str,
}

/// A set of identifiers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdSet {
    patterns: Vec<Pattern>,
}

impl IdSet {
    /// All identifiers.
    #[must_use]
    pub fn any() -> Self {
        let all = |extended| Pattern {
            extended,
            id: 0,
            mask: 0,
        };
        Self {
            patterns: vec![all(false), all(true)],
        }
    }

    /// One identifier.
    #[must_use]
    pub fn of(id: Id) -> Self {
        let extended = id.is_extended();
        let mask = if extended {
            EXTENDED_MASK
        } else {
            STANDARD_MASK
        };
        Self {
            patterns: vec![Pattern {
                extended,
                id: id.number(),
                mask,
            }],
        }
    }

    /// All that any of the texts names.
    ///
    /// # Errors
    /// For the first text that names none.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, NotIdentifiers> {
        let mut set = Self::default();
        for text in texts {
            let text = text.as_ref();
            set.add(text).map_err(|why| NotIdentifiers {
                text: text.to_owned(),
                why,
            })?;
        }
        Ok(set)
    }

    fn add(&mut self, text: &str) -> Result<(), &'static str> {
        let all = Self::any().patterns;
        match text {
            "any" => self.patterns.extend(all),
            "standard" => self.patterns.extend(all.first()),
            "extended" => self.patterns.extend(all.last()),
            _ => {
                if let Some((id, mask)) = text.split_once(':') {
                    let id = number(id)?;
                    let mask = number(mask)?;
                    if id.is_extended() != mask.is_extended() {
                        return Err("identifier and mask are of different formats");
                    }
                    self.patterns.push(Pattern {
                        extended: id.is_extended(),
                        id: id.number(),
                        mask: mask.number(),
                    });
                } else {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    self.add_range(number(first)?, number(last)?)?;
                }
            }
        }
        Ok(())
    }

    /// Splits a range into patterns: the largest aligned block that fits, then the next.
    fn add_range(&mut self, first: Id, last: Id) -> Result<(), &'static str> {
        if first.is_extended() != last.is_extended() {
            return Err("the ends of the range are of different formats");
        }
        let (mut next, last) = (first.number(), last.number());
        if next > last {
            return Err("the range ends before it begins");
        }
        let all = if first.is_extended() {
            EXTENDED_MASK
        } else {
            STANDARD_MASK
        };
        loop {
            let left = last.saturating_sub(next);
            let aligned = next.trailing_zeros().min(29);
            let fits = (u64::from(left).saturating_add(1)).ilog2();
            let block = 1_u32.checked_shl(aligned.min(fits)).unwrap_or(1);
            self.patterns.push(Pattern {
                extended: first.is_extended(),
                id: next,
                mask: all & !block.saturating_sub(1),
            });
            match next.checked_add(block) {
                Some(after) if after <= last => next = after,
                _ => return Ok(()),
            }
        }
    }

    /// Whether an identifier is in the set.
    #[must_use]
    pub fn contains(&self, id: Id) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(id))
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for pattern in &other.patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(*pattern);
            }
        }
    }

    /// What the set is made of: for filters in the kernel.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }
}

/// Reads an identifier: as many digits as candump prints say its format.
fn number(text: &str) -> Result<Id, &'static str> {
    let extended = match text.len() {
        1..=3 => false,
        8 => true,
        _ => {
            return Err(
                "write up to three hexadecimal digits, or eight for an extended identifier",
            );
        }
    };
    let number = u32::from_str_radix(text, 16)
        .ok()
        // A sign is none.
        .filter(|_| text.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .ok_or("these are no hexadecimal digits")?;
    Id::new(number, extended).ok_or("there is no such identifier")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> IdSet {
        IdSet::parse(texts).unwrap()
    }

    fn standard(number: u32) -> Id {
        Id::new(number, false).unwrap()
    }

    #[test]
    fn ranges_hold_what_is_between_their_ends_and_nothing_else() {
        for (first, last) in [
            (0, 0x7ff),
            (1, 0x7fe),
            (0x123, 0x123),
            (0x100, 0x1ff),
            (5, 9),
        ] {
            let range = set(&[&format!("{first:x}-{last:x}")]);
            for id in 0..=0x7ff {
                let within = (first..=last).contains(&id);
                assert_eq!(
                    range.contains(standard(id)),
                    within,
                    "{id:x} of {first:x}-{last:x}"
                );
            }
        }
        let j1939 = set(&["18FE0000-18FEFFFF"]);
        assert_eq!(j1939.patterns().len(), 1);
        assert!(j1939.contains(Id::new(0x18fe_1234, true).unwrap()));
        assert!(!j1939.contains(Id::new(0x18ff_0000, true).unwrap()));
        assert!(set(&["00000000-1fffffff"]).contains(Id::new(0x1fff_ffff, true).unwrap()));
    }

    #[test]
    fn formats_are_told_apart() {
        assert!(!set(&["standard"]).contains(Id::new(1, true).unwrap()));
        assert!(set(&["00000001"]).contains(Id::new(1, true).unwrap()));
        assert!(!set(&["001"]).contains(Id::new(1, true).unwrap()));
        assert!(set(&["any"]).contains(Id::new(1, true).unwrap()));
        assert!(!set(&[]).contains(standard(1)));
    }

    #[test]
    fn masks_are_those_of_candump() {
        let set = set(&["120:7f0"]);
        assert!(set.contains(standard(0x12f)));
        assert!(!set.contains(standard(0x130)));
    }

    #[test]
    fn a_text_that_names_nothing_says_why() {
        for text in [
            "",
            "xyz",
            "+12",
            "800",
            "1234",
            "20000000",
            "5-3",
            "1-00000002",
            "1:00000001",
        ] {
            let error = IdSet::parse(&[text]).unwrap_err().to_string();
            assert!(error.contains("names no identifiers"), "{error}");
        }
    }
}
