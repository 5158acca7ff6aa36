// SPDX-License-Identifier: Apache-2.0

//! The protocol of the virtio sound device (VIRTIO 1.4, 5.14.6): plain little-endian types, parsed
//! and built without any I/O.

mod codes;
mod ctl;
mod info;
mod pcm;

pub use codes::{CHMAP_MAX_POSITIONS, F_CTLS, NotifyMask, Request, Status, event, position, queue};
pub use ctl::{CTL_INFO_PACKED, CTL_VALUE_BYTES, CtlInfo, CtlRange, CtlRole, CtlType, access, tlv};
pub use info::{ChmapInfo, Config, Direction, JackInfo, PcmInfo, QueryInfo};
pub use pcm::{Event, ItemRequest, PcmStatus, SetParams, feature};
