// SPDX-License-Identifier: Apache-2.0

//! The controls of the test picture. A camera of the host has none here: it belongs to the host,
//! and what one guest sets would be seen by all.

use crate::controls::{Kind, Spec};

/// `V4L2_CID_BRIGHTNESS`.
pub const BRIGHTNESS: u32 = 0x0098_0900;
/// `V4L2_CID_HFLIP`.
pub const HFLIP: u32 = 0x0098_0914;
/// `V4L2_CID_VFLIP`.
pub const VFLIP: u32 = 0x0098_0915;
/// `V4L2_CID_TEST_PATTERN`.
pub const TEST_PATTERN: u32 = 0x009f_0903;

/// In the order of their ids.
pub const TEST_PICTURE: [Spec; 6] = [
    Spec::class(0x0098_0001, "User Controls"),
    Spec::new(BRIGHTNESS, "Brightness", Kind::Integer(0, 255, 1), 128),
    Spec::new(HFLIP, "Horizontal Flip", Kind::Boolean, 0),
    Spec::new(VFLIP, "Vertical Flip", Kind::Boolean, 0),
    Spec::class(0x009f_0001, "Image Processing Controls"),
    Spec::new(
        TEST_PATTERN,
        "Test Pattern",
        Kind::Menu(&["Colour Bars", "Grey"]),
        0,
    ),
];
