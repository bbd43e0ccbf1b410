//! The layout of a volume, as commands take it.

use clap::Args;

use crate::control::protocol::{LayoutName, Shape};
use crate::size::parse_size_not_zero;

/// The layout, as `volume create` and `volume migrate` take it.
#[derive(Clone, Debug, Default, Args)]
pub struct ShapeArgs {
    /// One device after the other, or striped over several [default: linear]
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<LayoutName>,
    /// Stripe over this many devices [default: as many as can be used]
    #[arg(long, value_name = "N", value_parser = columns)]
    pub columns: Option<usize>,
    /// Bytes on one device before the next one's turn: a power of two, 4K to 16M [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = stripe_unit)]
    pub stripe_unit: Option<u64>,
    /// Copies of the data, each on devices of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = mirrors)]
    pub mirrors: Option<usize>,
}

impl ShapeArgs {
    /// As the daemon takes it.
    pub fn shape(&self) -> Shape {
        let striped = self.columns.is_some() || self.stripe_unit.is_some();
        Shape {
            layout: self.layout.or(striped.then_some(LayoutName::Striped)),
            columns: self.columns,
            stripe_unit_bytes: self.stripe_unit,
            mirrors: self.mirrors,
        }
    }
}

fn columns(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(columns @ 2..=64) => Ok(columns),
        _ => Err("stripes have 2 to 64 columns".to_owned()),
    }
}

fn mirrors(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(mirrors @ 1..=4) => Ok(mirrors),
        _ => Err("a volume has 1 to 4 copies of its data".to_owned()),
    }
}

fn stripe_unit(text: &str) -> Result<u64, String> {
    let bytes = parse_size_not_zero(text)?;
    if bytes.is_power_of_two() && (4096..=16 << 20).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a stripe unit is a power of two from 4K to 16M".to_owned())
    }
}
