//! tokio: epoll for the sockets, and for the file either its pool of blocking threads or an inline read.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::protocol::{
    ANSWER_BYTES, BLOCK_BYTES, HEADER_BYTES, RECV_BYTES, offset_bytes, read_inline,
};

/// Serves until the process ends.
pub fn serve(listener: TcpListener, path: &Path, inline: bool) -> Result<()> {
    let file = Arc::new(File::open(path)?);
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let file = file.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, file, inline).await {
                        eprintln!("connection: {error}");
                    }
                });
            }
        })
}

async fn connection(mut stream: TcpStream, file: Arc<File>, inline: bool) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0_u8; RECV_BYTES];
    let mut filled = 0;
    let mut answers = Vec::new();
    loop {
        let count = stream.read(&mut buf[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let complete = filled / HEADER_BYTES * HEADER_BYTES;
        answers.clear();
        if inline {
            answers.resize(complete / HEADER_BYTES * ANSWER_BYTES, 0);
            let pairs = buf[..complete]
                .chunks_exact(HEADER_BYTES)
                .zip(answers.chunks_exact_mut(ANSWER_BYTES));
            for (request, answer) in pairs {
                answer[..HEADER_BYTES].copy_from_slice(request);
                read_inline(&file, offset_bytes(request), &mut answer[HEADER_BYTES..])?;
            }
        } else {
            let reads: Vec<_> = buf[..complete]
                .chunks_exact(HEADER_BYTES)
                .map(|request| {
                    let (file, offset) = (file.clone(), offset_bytes(request));
                    tokio::task::spawn_blocking(move || {
                        let mut block = vec![0_u8; BLOCK_BYTES];
                        file.read_exact_at(&mut block, offset).map(|()| block)
                    })
                })
                .collect();
            for (request, read) in buf[..complete].chunks_exact(HEADER_BYTES).zip(reads) {
                answers.extend_from_slice(request);
                answers.extend_from_slice(&read.await??);
            }
        }
        stream.write_all(&answers).await?;
        buf.copy_within(complete..filled, 0);
        filled -= complete;
    }
}
