//! The only module with `unsafe` code: operations whose buffers the kernel holds, and reception into memory that
//! was never initialised.

mod buffer;
mod ring;

pub(crate) use buffer::recv_now;
pub(crate) use ring::{Completion, OpId, Request, Ring};
