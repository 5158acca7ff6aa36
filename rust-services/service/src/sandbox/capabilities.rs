// SPDX-License-Identifier: Apache-2.0
//! Capabilities: gone, but for the one that real-time threads need until they have begun.

use super::Measure;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Drops everything but CAP_SYS_NICE, which threads need to become real-time. [`drop_all`]
/// takes that one in each thread.
pub(super) fn keep_nice() -> Measure {
    // The bounding set goes first: changing it needs CAP_SETPCAP.
    let bounding = empty_bounding_set();
    let _ = clear_ambient_capability_set();
    let result = capabilities(None).and_then(|now| {
        let kept = now.permitted & CapabilitySet::SYS_NICE;
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).map(|()| kept)
    });
    match (result, bounding) {
        (Err(error), _) => Measure::Refused(error.to_string()),
        (Ok(kept), _) if !kept.is_empty() => {
            Measure::Applied("all but CAP_SYS_NICE, which goes thread by thread".to_owned())
        }
        (Ok(_), Ok(())) => Measure::Applied("none left".to_owned()),
        // Without CAP_SETPCAP the bounding set stays, and with no new privileges it gives
        // nothing.
        (Ok(_), Err(_)) => Measure::Applied("none left, the bounding set stays".to_owned()),
    }
}

/// Drops what is left in the calling thread.
pub(super) fn drop_all() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..64_u32 {
        let Some(bit) = 1_u64.checked_shl(number) else {
            break;
        };
        let capability = CapabilitySet::from_bits_retain(bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no capability of this number or above.
            Err(_) => break,
        }
    }
    Ok(())
}
