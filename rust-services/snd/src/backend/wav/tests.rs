// SPDX-License-Identifier: Apache-2.0

use super::*;

fn params(format: Format) -> Params {
    let rate = Rate::from_hertz(44_100).unwrap();
    Params {
        format,
        rate,
        channels: 2,
        buffer_bytes: 0,
        period_bytes: 0,
        features: 0,
    }
}

#[test]
fn a_header_is_read_back_as_it_was_written() {
    for format in Format::ALL {
        let Some(layout) = Layout::of(format) else {
            continue;
        };
        let params = params(format);
        let head = header(layout, &params, 1000);
        let contents = Contents::parse(&head, 5000).unwrap();
        assert!(contents.fits(layout, &params), "{format:?}");
        assert_eq!((contents.data_at, contents.data_bytes), (80, 1000));
        // A service that died left a file longer or shorter than its header says.
        assert_eq!(Contents::parse(&head, 500).unwrap().data_bytes, 420);
    }
}

#[test]
fn every_valid_bit_survives_the_file() {
    for format in Format::ALL {
        let Some(layout) = Layout::of(format) else {
            continue;
        };
        let width = format.container_bits() as usize / 8;
        for n in 0..1000_u64 {
            let mut raw = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - format.valid_bits());
            if !format.is_unsigned() {
                let unused = 64 - format.valid_bits();
                raw = ((raw << unused) as i64 >> unused) as u64;
            }
            let bytes = raw.to_le_bytes()[..width].to_vec();
            let mut there = bytes.clone();
            layout.to_file(&mut there);
            layout.from_file(&mut there);
            assert_eq!(there, bytes, "{format:?}");
        }
    }
}

#[test]
fn loud_stays_loud_in_the_file() {
    let file = |format: Format, mut bytes: Vec<u8>| {
        Layout::of(format).unwrap().to_file(&mut bytes);
        bytes
    };
    assert_eq!(
        file(Format::S8, vec![0x7f]),
        [0xff],
        "WAV has 8 bits unsigned"
    );
    assert_eq!(file(Format::U16, vec![0, 0x80]), [0, 0], "silence is zero");
    assert_eq!(
        file(Format::S24, vec![0xff, 0xff, 0x7f, 0]),
        [0, 0xff, 0xff, 0x7f]
    );
    assert_eq!(file(Format::U20Packed, vec![0, 0, 8]), [0, 0, 0]);
}

#[test]
fn what_is_no_wav_file_is_said_to_be_none() {
    let good = header(Layout::of(Format::S16).unwrap(), &params(Format::S16), 8);
    assert!(Contents::parse(b"OggS", 4).is_err());
    for len in 0..80 {
        assert!(Contents::parse(&good[..len], len as u64).is_err(), "{len}");
    }
    let mut compressed = good;
    compressed[44] = 0x11;
    assert!(
        Contents::parse(&compressed, 100)
            .unwrap_err()
            .contains("PCM")
    );
}
