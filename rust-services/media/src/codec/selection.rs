// SPDX-License-Identifier: Apache-2.0

//! Rectangles: what of its pictures an encoder encodes, and where in its buffers a decoder puts what it
//! has decoded.

use agl_virtio_codec::{Position, Size};
use rustix::io::Errno;

use super::Way;
use super::formats::Chosen;
use crate::v4l2::Rectangle;
use crate::v4l2::input::Selection;

/// `V4L2_SEL_TGT_CROP`.
pub(super) const CROP: u32 = 0;
const CROP_DEFAULT: u32 = 1;
const CROP_BOUNDS: u32 = 2;
/// `V4L2_SEL_TGT_COMPOSE`.
pub(super) const COMPOSE: u32 = 0x100;
const COMPOSE_DEFAULT: u32 = 0x101;
const COMPOSE_BOUNDS: u32 = 0x102;
const COMPOSE_PADDED: u32 = 0x103;

/// `V4L2_SEL_FLAG_GE`: no smaller than that.
const AT_LEAST: u32 = 1;
/// `V4L2_SEL_FLAG_LE`: no larger.
const AT_MOST: u32 = 2;
/// Places and sizes are even, for two by two pixels have one sample of colour.
const STEP: u32 = 2;

fn whole(size: Size) -> Rectangle {
    Rectangle {
        left: 0,
        top: 0,
        width: size.width,
        height: size.height,
    }
}

/// G_SELECTION of the queue of pictures.
///
/// # Errors
/// EINVAL for another queue, or what such a codec does not have.
pub(super) fn told(way: Way, chosen: &Chosen, selection: &Selection) -> Result<Rectangle, Errno> {
    let encodes = way == Way::Encode;
    // Of multi-planar queues, the single-planar names count too.
    let of_pictures: &[u32] = if encodes { &[2, 10] } else { &[1, 9] };
    if !of_pictures.contains(&selection.type_) {
        return Err(Errno::INVAL);
    }
    let (seen, all) = (whole(chosen.visible), whole(chosen.layout.size));
    let Position { left, top } = chosen.layout.origin;
    let side = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
    let placed = Rectangle {
        left: side(left),
        top: side(top),
        ..seen
    };
    match (encodes, selection.target) {
        (true, CROP) => Ok(placed),
        (true, CROP_DEFAULT | CROP_BOUNDS) => Ok(all),
        // All that is seen of a stream is shown, in the size that it has.
        (false, CROP | CROP_DEFAULT | COMPOSE_DEFAULT) => Ok(seen),
        (false, CROP_BOUNDS) => Ok(whole(chosen.visible.even())),
        (false, COMPOSE_BOUNDS) => Ok(all),
        // Nothing is written around a picture.
        (false, COMPOSE | COMPOSE_PADDED) => Ok(placed),
        _ => Err(Errno::INVAL),
    }
}

/// S_SELECTION: an encoder's crop is set; a decoder's pictures are put elsewhere, for it scales nothing.
///
/// # Errors
/// As [`told`], and ERANGE where the flags want a size that cannot be.
pub(super) fn set(way: Way, chosen: &mut Chosen, selection: &mut Selection) -> Result<(), Errno> {
    let (flags, wish, all) = (selection.flags, selection.r, chosen.layout.size);
    let (seen, origin) = match (way, selection.target) {
        (Way::Encode, CROP) => {
            let seen = Size::new(
                nearest(wish.width, all.width, flags)?,
                nearest(wish.height, all.height, flags)?,
            );
            (seen, place(&wish, seen, all))
        }
        (Way::Decode, COMPOSE) => {
            let seen = chosen.visible;
            admit(seen.width, wish.width, flags)?;
            admit(seen.height, wish.height, flags)?;
            (seen, place(&wish, seen, all))
        }
        (Way::Decode, CROP) => {
            let seen = chosen.visible;
            admit(seen.width, wish.width, flags)?;
            admit(seen.height, wish.height, flags)?;
            (seen, chosen.layout.origin)
        }
        _ => return Err(Errno::INVAL),
    };
    chosen.see(origin, seen);
    selection.r = told(way, chosen, selection)?;
    Ok(())
}

/// Whether a size is what the flags allow for a wish.
fn admit(size: u32, wish: u32, flags: u32) -> Result<u32, Errno> {
    let too_small = flags & AT_LEAST != 0 && size < wish;
    let too_large = flags & AT_MOST != 0 && size > wish;
    if too_small || too_large {
        return Err(Errno::RANGE);
    }
    Ok(size)
}

/// The size nearest to a wish that the flags allow. Of two that are as near, the smaller one: it shows
/// nothing that was not wished.
fn nearest(wish: u32, all: u32, flags: u32) -> Result<u32, Errno> {
    let up = flags & AT_LEAST != 0;
    let even = if up {
        wish.checked_next_multiple_of(STEP).unwrap_or(all)
    } else {
        wish & !(STEP - 1)
    };
    let size = even.clamp(STEP, all.max(STEP));
    admit(size, wish, flags)
}

/// Where a rectangle of this size is to be: its middle as near as can be to that of the wish.
fn place(wish: &Rectangle, seen: Size, all: Size) -> Position {
    Position::new(
        along(wish.left, wish.width, seen.width, all.width),
        along(wish.top, wish.height, seen.height, all.height),
    )
}

fn along(begin: i32, wish: u32, seen: u32, all: u32) -> u32 {
    let moved = i64::from(wish).saturating_sub(seen.into()) / 2;
    let most = i64::from(all.saturating_sub(seen));
    let begin = i64::from(begin).saturating_add(moved).clamp(0, most);
    u32::try_from(begin).unwrap_or(0) & !(STEP - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_nearest_even_one_unless_the_flags_forbid_it() {
        for (wish, flags, wanted) in [
            (50, 0, Ok(50)),
            (51, 0, Ok(50)),
            (51, AT_MOST, Ok(50)),
            (51, AT_LEAST, Ok(52)),
            (51, AT_LEAST | AT_MOST, Err(Errno::RANGE)),
            (50, AT_LEAST | AT_MOST, Ok(50)),
            (0, 0, Ok(2)),
            (1, AT_MOST, Err(Errno::RANGE)),
            (1, AT_LEAST, Ok(2)),
            (65, AT_LEAST, Err(Errno::RANGE)),
            (u32::MAX, 0, Ok(64)),
            (u32::MAX, AT_MOST, Ok(64)),
            (u32::MAX, AT_LEAST, Err(Errno::RANGE)),
        ] {
            assert_eq!(nearest(wish, 64, flags), wanted, "{wish} {flags}");
        }
    }

    #[test]
    fn a_place_is_even_and_within_and_keeps_the_middle() {
        for (begin, wish, seen, wanted) in [
            (0, 20, 20, 0),
            (10, 20, 20, 10),
            (11, 20, 20, 10),
            (60, 20, 20, 44),
            (-5, 20, 20, 0),
            // The middle of 10 to 40 is that of 16 to 34.
            (10, 30, 18, 16),
            (i32::MAX, u32::MAX, 20, 44),
            (i32::MIN, u32::MAX, 20, 0),
            (i32::MIN, 0, 64, 0),
        ] {
            assert_eq!(along(begin, wish, seen, 64), wanted, "{begin} {wish}");
        }
    }
}
