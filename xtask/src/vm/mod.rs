//! Linux guests under QEMU, for what only a real kernel can show: an image from Debian packages, a network of their
//! own, and a way to run commands in them.

pub mod accelerator;
pub mod guest;
pub mod image;
pub mod network;
pub mod qmp;
