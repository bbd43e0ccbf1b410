//! How the volumes of a scenario are laid out.

/// A layout of `ringfence volume create`, on devices of the volume's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One extent after the other, on one device.
    Linear,
    /// Striped over three devices.
    Striped,
    /// Two copies.
    Mirrored,
    /// Two copies, each striped over two devices, with small stripes so that most commands cross them.
    StripedMirror,
}

impl Layout {
    /// For the names of folders and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Striped => "striped",
            Self::Mirrored => "mirrored",
            Self::StripedMirror => "striped-mirror",
        }
    }

    /// How many devices it takes.
    pub fn devices(self) -> usize {
        match self {
            Self::Linear => 1,
            Self::Mirrored => 2,
            Self::Striped => 3,
            Self::StripedMirror => 4,
        }
    }

    /// The options of `volume create`, without `--on`.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Linear => &[],
            Self::Striped => &["--layout", "striped", "--columns", "3"],
            Self::Mirrored => &["--mirrors", "2"],
            Self::StripedMirror => &[
                "--layout",
                "striped",
                "--columns",
                "2",
                "--stripe-unit",
                "16K",
                "--mirrors",
                "2",
            ],
        }
    }
}
