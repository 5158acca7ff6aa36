// SPDX-License-Identifier: Apache-2.0

use super::*;

struct RoundTrip(Vec<u8>);
impl WithCodec for RoundTrip {
    type Result = (Vec<u8>, f64);
    fn run<C: Codec>(self) -> Self::Result {
        let value = C::decode(&self.0);
        let mut bytes = vec![0; C::WIDTH];
        C::encode(value, &mut bytes);
        (bytes, value)
    }
}

#[test]
fn every_sample_comes_back_as_it_was() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| format.has_arithmetic())
    {
        let width = format.container_bits() as usize / 8;
        let mask = u64::MAX >> (64 - format.valid_bits());
        for n in 0..4096_u64 {
            let mut raw = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
            match format {
                Format::Float => raw = u64::from((n as f32 / 2048.0 - 1.0).to_bits()),
                Format::Float64 => raw = (n as f64 / 2048.0 - 1.0).to_bits(),
                // Signed samples fill their container with the sign.
                _ if !format.is_unsigned() && width > 1 => {
                    let unused = 64 - format.valid_bits();
                    raw = ((raw << unused) as i64 >> unused) as u64;
                }
                _ => {}
            }
            let bytes = raw.to_le_bytes()[..width].to_vec();
            // The law has a second zero, which becomes the first.
            if format == Format::MuLaw && bytes == [0x7f] {
                continue;
            }
            let (back, value) = with_codec(format, RoundTrip(bytes.clone())).unwrap();
            assert_eq!(back, bytes, "{format:?} {value}");
            assert!((-1.0..=1.0).contains(&value), "{format:?} {value}");
        }
    }
}

#[test]
fn silence_is_next_to_nothing_in_every_format() {
    for format in Format::ALL
        .into_iter()
        .filter(|format| format.has_arithmetic())
    {
        let width = format.container_bits() as usize / 8;
        let bytes = format.silence()[..width].to_vec();
        let (_, value) = with_codec(format, RoundTrip(bytes)).unwrap();
        assert!(value.abs() < 0.001, "{format:?} {value}");
    }
}

#[test]
fn too_loud_is_as_loud_as_can_be() {
    let mut bytes = [0; 2];
    Integer::<2, 16, false>::encode(7.0, &mut bytes);
    assert_eq!(i16::from_le_bytes(bytes), i16::MAX);
    Integer::<2, 16, true>::encode(-7.0, &mut bytes);
    assert_eq!(u16::from_le_bytes(bytes), 0);
}
