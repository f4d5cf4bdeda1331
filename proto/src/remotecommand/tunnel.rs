//! Port-forward as upstream's kubectl does it: a SPDY/3.1 connection inside a WebSocket (KEP-4006).

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::hang_up;

/// SPDY bytes inside WebSocket messages on one side, plain on the other.
pub async fn tunnel<C, R>(socket: WebSocketStream<C>, runtime: R)
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite,
{
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(runtime);
    let inwards = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                tungstenite::Message::Binary(data) => {
                    if writer.write_all(&data).await.is_err() {
                        return;
                    }
                }
                tungstenite::Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count) = reader.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..count]);
            if count == 0 || sink.send(tungstenite::Message::Binary(data)).await.is_err() {
                break;
            }
        }
        hang_up(&mut sink).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}
