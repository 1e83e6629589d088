//! An HTTP proxy in front of a real server, which goes wrong on demand.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault that the proxy brings about for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and S3 error code; the server never sees it.
    Status(u16, &'static str),
    /// The server's answer is passed on after this long.
    Delay(Duration),
    /// The connection is closed before anything is read.
    Hangup,
    /// The server does what was asked for, and its answer is lost.
    LoseAnswer,
    /// The answer's body breaks off after this many bytes.
    Truncate(u64),
    /// The answer's body stops after this many bytes; the connection stays open.
    Stall(u64),
    /// The request's body breaks off after this many bytes.
    CutRequest(u64),
    /// One bit of the answer's body is flipped, at this byte.
    Flip(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// The path of the request with its query.
    pub path: String,
    /// The number of the request since the proxy started, from zero.
    pub number: u64,
}

type Plan = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// Accepts one request per connection. Stops when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    state: Mutex<ProxyState>,
    closed: Condvar,
}

struct ProxyState {
    plan: Plan,
    log: Vec<Request>,
    closing: bool,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, which is a host and a port.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = ProxyState { plan: Box::new(|_| None), log: Vec::new(), closing: false };
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: state.into(),
            closed: Condvar::new(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.state().closing {
                    return;
                }
                let shared = accepting.clone();
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Self { port, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on `plan` decides what happens to each request.
    pub fn plan(&self, plan: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        self.shared.state().plan = Box::new(plan);
    }

    /// Makes every request from now on go through without a fault.
    pub fn heal(&self) {
        self.plan(|_| None);
    }

    /// All requests so far, in their order.
    pub fn log(&self) -> Vec<Request> {
        self.shared.state().log.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.closed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(client);
        let head = read_head(&mut input)?;
        let mut words = head.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fault = {
            let state = &mut *self.state();
            let request = Request { method, path, number: state.log.len() as u64 };
            let fault = (state.plan)(&request);
            state.log.push(request);
            fault
        };
        match fault {
            Some(Fault::Hangup) => return client.shutdown(Shutdown::Both),
            Some(Fault::Delay(time)) => self.wait(Some(time)),
            _ => {}
        }
        let mut body = input.take(body_length(&head));
        if let Some(Fault::Status(status, code)) = fault {
            io::copy(&mut body, &mut io::sink())?;
            return refuse(client, status, code);
        }
        let server = TcpStream::connect(&self.upstream)?;
        (&server).write_all(closing_head(&head).as_bytes())?;
        if let Some(Fault::CutRequest(bytes)) = fault {
            io::copy(&mut body.by_ref().take(bytes), &mut &server)?;
            server.shutdown(Shutdown::Write)?;
            return self.answer(client, &server, None);
        }
        io::copy(&mut body, &mut &server)?;
        self.answer(client, &server, fault)
    }

    fn answer(
        &self,
        mut client: &TcpStream,
        server: &TcpStream,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let mut answer = BufReader::new(server);
        let head = read_head(&mut answer)?;
        if fault == Some(Fault::LoseAnswer) {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(head.as_bytes())?;
        let part = match fault {
            Some(Fault::Truncate(bytes) | Fault::Stall(bytes) | Fault::Flip(bytes)) => bytes,
            _ => u64::MAX,
        };
        io::copy(&mut (&mut answer).take(part), &mut client)?;
        match fault {
            Some(Fault::Stall(_)) => self.wait(None),
            Some(Fault::Flip(_)) => {
                let mut byte = [0];
                answer.read_exact(&mut byte)?;
                client.write_all(&[byte[0] ^ 1])?;
                io::copy(&mut answer, &mut client)?;
            }
            _ => {}
        }
        client.shutdown(Shutdown::Both)
    }

    /// Returns after this time, or when the proxy goes.
    fn wait(&self, time: Option<Duration>) {
        let time = time.unwrap_or(Duration::MAX);
        let closing = |state: &mut ProxyState| !state.closing;
        drop(self.closed.wait_timeout_while(self.state(), time, closing));
    }
}

/// Reads the head of a message, up to and with the empty line.
fn read_head(input: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn header<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once(':')?;
    key.eq_ignore_ascii_case(name).then_some(value.trim())
}

fn body_length(head: &str) -> u64 {
    let mut lines = head.lines();
    assert!(!lines.clone().any(|line| header(line, "transfer-encoding").is_some()), "{head}");
    lines.find_map(|line| header(line, "content-length")).map_or(0, |text| text.parse().unwrap())
}

/// The head of a request, changed to ask for the connection's end after the answer.
fn closing_head(head: &str) -> String {
    let kept = head.lines().filter(|line| !line.is_empty() && header(line, "connection").is_none());
    let mut lines: Vec<_> = kept.collect();
    lines.push("Connection: close");
    lines.join("\r\n") + "\r\n\r\n"
}

fn refuse(mut client: &TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>");
    let head = format!(
        "HTTP/1.1 {status} Planned\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes())?;
    client.shutdown(Shutdown::Both)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every connection with ten bytes.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                read_head(&mut BufReader::new(&client)).unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
                (&client).write_all(answer).unwrap();
            }
        });
        address
    }

    fn get(proxy: &Proxy) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.write_all(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let proxy = Proxy::start(&server());
        let status = "HTTP/1.1 200 OK";
        for (fault, head, body) in [
            (None, status, "0123456789"),
            (Some(Fault::Truncate(4)), status, "0123"),
            (Some(Fault::Flip(3)), status, "0122456789"),
            (Some(Fault::Hangup), "", ""),
            (Some(Fault::LoseAnswer), "", ""),
            (Some(Fault::Delay(Duration::from_millis(1))), status, "0123456789"),
        ] {
            proxy.plan(move |_| fault);
            assert_eq!(get(&proxy), (head.to_owned(), body.to_owned()), "{fault:?}");
        }
        proxy.plan(|_| Some(Fault::Status(503, "SlowDown")));
        let (head, body) = get(&proxy);
        assert!(head.contains("503") && body.contains("<Code>SlowDown</Code>"), "{head} {body}");
        let log = proxy.log();
        assert_eq!(
            (log[6].method.as_str(), log[6].path.as_str(), log[6].number),
            ("GET", "/a?b", 6)
        );
    }
}
