// SPDX-License-Identifier: Apache-2.0

//! Texts in fixed fields.

/// A text of at most `N - 1` bytes, and zeros.
#[must_use]
pub fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let room = N.saturating_sub(1);
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    for (to, from) in field.iter_mut().zip(text.as_bytes().iter().take(end)) {
        *to = *from;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_ends_in_zero() {
        assert_eq!(name::<4>("ab"), *b"ab\0\0");
        assert_eq!(name::<4>("abcdef"), *b"abc\0");
        assert_eq!(name::<4>("abü"), *b"ab\0\0");
    }
}
