// SPDX-License-Identifier: Apache-2.0

//! The moving test picture: every byte of it follows from its format, its number and the controls,
//! so that whoever gets it can say whether it is right. docs/media.md describes it.
//!
//! It is made of cells of two by two pixels, each of one colour: so it is the same in every format,
//! and no format needs a mean of neighbours.

use super::modes::{Layout, Mode, PixelFormat};

/// Colours as red, green, blue: the bars from left to right, then the square.
const PALETTE: [[u8; 3]; 9] = [
    [191, 191, 191],
    [191, 191, 0],
    [0, 191, 191],
    [0, 191, 0],
    [191, 0, 191],
    [191, 0, 0],
    [0, 0, 191],
    [0, 0, 0],
    [128, 128, 128],
];
const BARS: usize = 8;
const WHITE: usize = 0;
const BLACK: usize = 7;
const SQUARE: usize = 8;
/// Bits of the number that the lowest eighth of the picture shows.
const BITS: usize = 32;

/// What changes the picture.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Look {
    /// Is added to red, green and blue.
    pub brightness: i32,
    /// Left and right are exchanged.
    pub mirrored: bool,
    /// Top and bottom are exchanged.
    pub upside_down: bool,
    /// Grey instead of bars.
    pub grey: bool,
}

/// Lines of cells differ by what is in them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    Bars,
    Square,
    Number,
}

/// A test picture that changes with its number.
#[derive(Debug)]
pub struct Picture {
    mode: Mode,
    layout: Layout,
    /// For each plane, its row of each [`Line`].
    rows: Vec<[Vec<u8>; 3]>,
    /// Which number and look the rows are of.
    drawn: Option<(u64, Look)>,
}

impl Picture {
    /// A picture of this format and size.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let layout = mode.layout();
        let rows = layout.planes.iter().map(|_| Default::default());
        Self {
            mode,
            rows: rows.collect(),
            layout,
            drawn: None,
        }
    }

    /// Bytes of the whole picture.
    #[must_use]
    pub fn size(&self) -> usize {
        self.layout.size
    }

    /// Makes it the picture of a number.
    pub fn draw(&mut self, number: u64, look: Look) {
        if self.drawn == Some((number, look)) {
            return;
        }
        self.drawn = Some((number, look));
        let colours = PALETTE.map(|colour| colour.map(|value| brighten(value, look.brightness)));
        for (kind, line) in [Line::Bars, Line::Square, Line::Number]
            .into_iter()
            .enumerate()
        {
            let mut cells = self.cells(line, number, look.grey);
            if look.mirrored {
                cells.reverse();
            }
            for (plane, rows) in self.rows.iter_mut().enumerate() {
                if let Some(row) = rows.get_mut(kind) {
                    row.clear();
                    expand(self.mode.format, plane, &cells, &colours, row);
                }
            }
        }
    }

    /// The bytes from `offset` to the end of their row.
    #[must_use]
    pub fn run_at(&self, offset: usize) -> &[u8] {
        self.row_at(offset).unwrap_or_default()
    }

    fn row_at(&self, offset: usize) -> Option<&[u8]> {
        let at = self
            .layout
            .planes
            .iter()
            .rposition(|plane| plane.offset <= offset)?;
        let plane = self.layout.planes.get(at)?;
        let inside = offset.checked_sub(plane.offset)?;
        let row = inside.checked_div(plane.stride)?;
        let column = inside.checked_rem(plane.stride)?;
        let line = self.line(row.checked_div(plane.rows_per_cell)?);
        self.rows.get(at)?.get(line as usize)?.get(column..)
    }

    fn cells_high(&self) -> usize {
        usize::try_from(self.mode.height / 2).unwrap_or(0)
    }

    fn cells_wide(&self) -> usize {
        usize::try_from(self.mode.width / 2).unwrap_or(0)
    }

    fn line(&self, row: usize) -> Line {
        let height = self.cells_high();
        let upside_down = self.drawn.is_some_and(|(_, look)| look.upside_down);
        let row = if upside_down {
            height.saturating_sub(1).saturating_sub(row)
        } else {
            row
        };
        let quarter = height / 4;
        if row >= height.saturating_sub(height / 8) {
            Line::Number
        } else if row >= quarter && row < quarter.saturating_mul(2) {
            Line::Square
        } else {
            Line::Bars
        }
    }

    /// The colours of a line, as places in the palette.
    fn cells(&self, line: Line, number: u64, grey: bool) -> Vec<usize> {
        let width = self.cells_wide();
        let bar = |cell: usize| {
            let bar = cell.saturating_mul(BARS).checked_div(width).unwrap_or(0);
            if grey { SQUARE } else { bar }
        };
        match line {
            Line::Bars => (0..width).map(bar).collect(),
            Line::Square => {
                let side = self.cells_high() / 4;
                let room = width.saturating_sub(side).max(1) as u64;
                let left = number.wrapping_mul(2).checked_rem(room).unwrap_or(0);
                let left = usize::try_from(left).unwrap_or(0);
                let right = left.saturating_add(side);
                (0..width)
                    .map(|cell| match cell {
                        _ if cell < left || cell >= right => bar(cell),
                        _ if grey => BLACK,
                        _ => SQUARE,
                    })
                    .collect()
            }
            Line::Number => {
                let wide = (width / BITS).max(1);
                (0..width)
                    .map(|cell| {
                        let bit = cell.checked_div(wide).unwrap_or(0);
                        let shift = (BITS.saturating_sub(1)).checked_sub(bit);
                        let is_set = shift.is_some_and(|shift| number >> shift & 1 != 0);
                        if is_set { WHITE } else { BLACK }
                    })
                    .collect()
            }
        }
    }
}

fn brighten(value: u8, by: i32) -> u8 {
    let value = i32::from(value).saturating_add(by).clamp(0, 255);
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// ITU-R BT.601, studio range, in integers.
fn yuv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let mean = |weights: [i32; 3], offset: i32| {
        let [of_red, of_green, of_blue] = weights;
        let sum = of_red
            .saturating_mul(red.into())
            .saturating_add(of_green.saturating_mul(green.into()))
            .saturating_add(of_blue.saturating_mul(blue.into()))
            .saturating_add(128);
        u8::try_from((sum >> 8).saturating_add(offset)).unwrap_or(0)
    };
    [
        mean([66, 129, 25], 16),
        mean([-38, -74, 112], 128),
        mean([112, -94, -18], 128),
    ]
}

/// Writes one row of a plane.
fn expand(
    format: PixelFormat,
    plane: usize,
    cells: &[usize],
    colours: &[[u8; 3]; PALETTE.len()],
    row: &mut Vec<u8>,
) {
    for &cell in cells {
        let rgb = colours.get(cell).copied().unwrap_or_default();
        let [y, u, v] = yuv(rgb);
        match (format, plane) {
            (PixelFormat::Nv12 | PixelFormat::Yu12, 0) => row.extend_from_slice(&[y, y]),
            (PixelFormat::Nv12, _) => row.extend_from_slice(&[u, v]),
            (PixelFormat::Yu12, 1) => row.push(u),
            (PixelFormat::Yu12, _) => row.push(v),
            (PixelFormat::Yuyv, _) => row.extend_from_slice(&[y, u, y, v]),
            (PixelFormat::Rgb3, _) => {
                row.extend_from_slice(&rgb);
                row.extend_from_slice(&rgb);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    fn bytes(format: PixelFormat, number: u64, look: Look) -> Vec<u8> {
        let mode = Mode {
            format,
            width: 128,
            height: 64,
            rate: Rate::USUAL,
        };
        let mut picture = Picture::new(mode);
        picture.draw(number, look);
        let mut bytes = Vec::new();
        while bytes.len() < picture.size() {
            let run = picture.run_at(bytes.len());
            assert!(!run.is_empty());
            bytes.extend_from_slice(run);
        }
        assert_eq!(bytes.len(), mode.layout().size);
        bytes
    }

    fn pixel(bytes: &[u8], x: usize, y: usize) -> [u8; 3] {
        bytes[(y * 128 + x) * 3..][..3].try_into().unwrap()
    }

    #[test]
    fn bars_square_and_number_are_where_they_should_be() {
        let picture = bytes(PixelFormat::Rgb3, 0x8000_0001, Look::default());
        assert_eq!(pixel(&picture, 0, 0), [191, 191, 191]);
        assert_eq!(pixel(&picture, 127, 0), [0, 0, 0]);
        assert_eq!(pixel(&picture, 16, 55), [191, 191, 0]);
        // 8 lines of cells; 56 places
        let left = 2 * (0x8000_0001_u64 * 2 % 56) as usize;
        assert_eq!(pixel(&picture, left, 16), [128; 3]);
        assert_eq!(pixel(&picture, left + 15, 31), [128; 3]);
        assert_ne!(pixel(&picture, left + 16, 31), [128; 3]);
        for (bit, set) in [(0, true), (1, false), (30, false), (31, true)] {
            let colour = if set { [191; 3] } else { [0; 3] };
            assert_eq!(pixel(&picture, bit * 4 + 1, 60), colour, "bit {bit}");
        }
    }

    #[test]
    fn all_formats_show_the_same() {
        let look = Look {
            brightness: 20,
            mirrored: true,
            ..Look::default()
        };
        let rgb = bytes(PixelFormat::Rgb3, 77, look);
        let nv12 = bytes(PixelFormat::Nv12, 77, look);
        let yu12 = bytes(PixelFormat::Yu12, 77, look);
        let yuyv = bytes(PixelFormat::Yuyv, 77, look);
        for y in 0..64 {
            for x in 0..128 {
                let [luma, u, v] = yuv(pixel(&rgb, x, y));
                let cell = (y / 2, x / 2);
                assert_eq!(nv12[y * 128 + x], luma);
                assert_eq!(nv12[64 * 128 + cell.0 * 128 + cell.1 * 2..][..2], [u, v]);
                assert_eq!(yu12[y * 128 + x], luma);
                assert_eq!(yu12[64 * 128 + cell.0 * 64 + cell.1], u);
                assert_eq!(yu12[80 * 128 + cell.0 * 64 + cell.1], v);
                assert_eq!(yuyv[(y * 128 + x / 2 * 2) * 2..][..4], [luma, u, luma, v]);
            }
        }
    }

    #[test]
    fn flips_exchange_the_sides() {
        let plain = bytes(PixelFormat::Rgb3, 5, Look::default());
        let look = Look {
            mirrored: true,
            upside_down: true,
            ..Look::default()
        };
        let turned = bytes(PixelFormat::Rgb3, 5, look);
        for y in 0..64 {
            for x in 0..128 {
                assert_eq!(pixel(&plain, x, y), pixel(&turned, 127 - x, 63 - y));
            }
        }
    }
}
