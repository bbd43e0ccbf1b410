//! Both ends against each other, and the target against what no good initiator sends.

mod pair;
mod transfer;
