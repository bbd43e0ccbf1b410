//! The product's own reactor and file device.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::{Buf, BytesMut};
use reactor::{BackendChoice, Config, FileDevice, OpenOptions, TcpStream, spawn_local};
use volume::block_device::{BlockDevice, aligned_buffer};

use crate::protocol::{BLOCK_BYTES, HEADER_BYTES, RECV_BYTES, offset_bytes};

/// Serves until the process ends. `listener` only reserves the port.
pub fn serve(
    listener: TcpListener,
    path: &Path,
    backend: BackendChoice,
    spin: Duration,
) -> Result<()> {
    let config = Config {
        backend,
        spin,
        ..Config::default()
    };
    let device = Arc::new(FileDevice::open(path, OpenOptions::default())?);
    reactor::block_on(&config, async move {
        let listener = reactor::TcpListener::from_std(listener)?;
        loop {
            let stream = listener.accept().await?.into_stream()?;
            let device = device.clone();
            spawn_local(async move {
                if let Err(error) = connection(stream, device).await {
                    eprintln!("connection: {error}");
                }
            });
        }
    })?
}

async fn connection(stream: TcpStream, device: Arc<FileDevice>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = BytesMut::with_capacity(RECV_BYTES);
    let mut answers = Vec::new();
    loop {
        if buf.capacity() - buf.len() < HEADER_BYTES {
            buf.reserve(RECV_BYTES);
        }
        let (result, back) = stream.recv(buf).await;
        buf = back;
        if result? == 0 {
            return Ok(());
        }
        while buf.len() >= HEADER_BYTES {
            let request = buf.split_to(HEADER_BYTES).freeze();
            let block = aligned_buffer(BLOCK_BYTES);
            let (result, block) = device.read(offset_bytes(&request), block).await;
            result?;
            answers.push(request);
            answers.push(block.freeze());
        }
        let (result, back) = stream.send_vectored(answers).await;
        answers = back;
        result?;
        if !buf.has_remaining() {
            buf.clear();
        }
    }
}
