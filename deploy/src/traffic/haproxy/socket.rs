//! HAProxy's runtime socket: a line goes there, the answer ends with the connection.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Bytes of an answer: lines of [`super::super::MAX_MEMBERS`] servers.
const MAX_ANSWER: u64 = 8 << 20;
const ANSWER: Duration = Duration::from_secs(5);

/// `Err`: why there is no answer, in words.
pub async fn ask(socket: &Path, line: &str) -> Result<String, String> {
    let shown = socket.display();
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(line.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(ANSWER, talk).await {
        Err(_) => Err(format!("{shown}: no answer within {ANSWER:?}")),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Ok(Ok(answer)) if answer.len() as u64 >= MAX_ANSWER => {
            Err(format!("{shown}: its answer has more than {MAX_ANSWER} bytes"))
        }
        Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}
