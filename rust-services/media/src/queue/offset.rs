// SPDX-License-Identifier: Apache-2.0

//! What QUERYBUF tells as the offset of a plane in memory of the device: a name for it, by which MMAP asks.

use super::MAX_BUFFERS;
use crate::v4l2::BufType;

/// Of the queue that is filled, so that a session's two queues have no offset in common.
const CAPTURE: u32 = 1 << 30;
/// Offsets are multiples of the largest page that a guest may have.
const STEP: u32 = 16;
/// Planes of a buffer, as a power of two.
const PLANES: u32 = 3;

/// What QUERYBUF tells as the offset of a plane.
pub(super) fn told(type_: BufType, index: u32, plane: usize) -> u64 {
    let plane = u32::try_from(plane).unwrap_or(0);
    let queue = if type_.is_output() { 0 } else { CAPTURE };
    u64::from(queue | (index << PLANES | plane) << STEP)
}

/// And what it was told for.
pub(super) fn parse(type_: BufType, offset: u32) -> Option<(usize, usize)> {
    let number = offset >> STEP;
    let (index, plane) = (
        (number >> PLANES) & (MAX_BUFFERS - 1),
        number & ((1 << PLANES) - 1),
    );
    let (index, plane) = (usize::try_from(index).ok()?, usize::try_from(plane).ok()?);
    let told = told(type_, u32::try_from(index).ok()?, plane);
    (told == u64::from(offset)).then_some((index, plane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_names_one_plane_of_one_queue_and_others_name_none() {
        for type_ in [BufType::OutputMplane, BufType::CaptureMplane] {
            for (index, plane) in [(0, 0), (31, 7), (5, 1)] {
                let offset = u32::try_from(told(type_, index, plane)).unwrap();
                assert_eq!(parse(type_, offset), Some((index as usize, plane)));
                assert_eq!(parse(type_, offset + 1), None);
                assert_eq!(parse(type_, offset | 1 << 31), None);
            }
        }
        let output = told(BufType::OutputMplane, 1, 0);
        assert_eq!(
            parse(BufType::CaptureMplane, u32::try_from(output).unwrap()),
            None
        );
    }
}
