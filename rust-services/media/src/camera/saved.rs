// SPDX-License-Identifier: Apache-2.0

//! A camera's settings, as a successor of this process finds them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::modes::{Mode, Modes};
use crate::controls::Controls;
use crate::payload::Input;
use crate::v4l2::{Fraction, PixFormat};

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Head {
    pix: PixFormat,
    interval: Fraction,
    controls: u32,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Value {
    id: u32,
    value: i32,
}

/// Mode and controls.
pub(super) fn write(mode: Mode, controls: &Controls) -> Vec<u8> {
    let values: Vec<Value> = controls
        .changed()
        .map(|(id, value)| Value { id, value })
        .collect();
    let head = Head {
        pix: mode.pix(),
        interval: mode.rate.interval(),
        controls: u32::try_from(values.len()).unwrap_or(0),
    };
    let mut bytes = head.as_bytes().to_vec();
    for value in &values {
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

/// Takes over what still can be.
pub(super) fn read(bytes: &[u8], modes: &Modes, mode: &mut Mode, controls: &mut Controls) {
    let mut input = Input::new(bytes);
    let Ok(head) = input.take::<Head>() else {
        return;
    };
    let nearest = modes.nearest(&head.pix, *mode);
    *mode = modes.at_rate(nearest, head.interval);
    let count = usize::try_from(head.controls).unwrap_or(0);
    for Value { id, value } in input.take_all::<Value>(count).unwrap_or_default() {
        let mut control = crate::v4l2::control::Control { id, value };
        // A new version of the service may have other controls.
        let _ = controls.set(&mut control);
    }
}
