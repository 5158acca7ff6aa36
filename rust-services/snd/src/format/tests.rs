// SPDX-License-Identifier: Apache-2.0

use super::*;

#[test]
fn numbers_on_the_wire_lead_back_to_their_format_and_rate() {
    for (number, format) in (0..).zip(Format::ALL) {
        assert_eq!(Format::from_wire(number), Some(format));
        assert_eq!(format.bit(), 1 << number);
        assert!(format.valid_bits() <= format.container_bits());
    }
    assert_eq!(Format::from_wire(25), None);
    for rate in Rate::all() {
        assert_eq!(Rate::from_wire(rate.number()), Some(rate));
        assert_eq!(Rate::from_hertz(rate.hertz()), Some(rate));
    }
    assert_eq!(Rate::from_wire(16), None);
    assert_eq!(Rate::from_wire(7).unwrap().hertz(), 48_000);
    assert_eq!(Rate::from_wire(15).unwrap().hertz(), 24_000);
}

#[test]
fn silence_is_the_middle_of_the_range() {
    let rate = Rate::from_hertz(48_000).unwrap();
    let params = |format| Params {
        format,
        rate,
        channels: 2,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    };
    let mut bytes = [1; 6];
    params(Format::U20Packed).fill_silence(&mut bytes);
    assert_eq!(bytes, [0, 0, 8, 0, 0, 8]);
    params(Format::S16).fill_silence(&mut bytes);
    assert_eq!(bytes, [0; 6]);
    params(Format::U16).fill_silence(&mut bytes);
    assert_eq!(bytes, [0, 0x80, 0, 0x80, 0, 0x80]);
}
