//! stub
#![allow(missing_docs, unused)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Missing,
    One(Box<str>),
    Several,
}
pub struct Request {
    pub host: Box<str>,
    pub port: Option<u16>,
    pub authority: Box<str>,
    pub path: Box<str>,
    pub query: Option<Box<str>>,
    pub key: Box<str>,
    pub origin: Origin,
    pub subprotocols: Box<[Box<str>]>,
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
}
pub const MAX_HEAD: usize = 16384;
#[derive(Debug)]
pub enum RequestError {
    X,
}
#[derive(Debug)]
pub enum ResponseError {
    X,
}
impl From<RequestError> for crate::reason::Reason {
    fn from(_: RequestError) -> Self {
        Self::Internal
    }
}
pub enum Response {
    Switching { subprotocol: Option<Box<str>> },
    Refused { status: u16 },
}
pub struct Forwarded<'a> {
    pub client: std::net::IpAddr,
    pub host: &'a str,
}
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    Ok(None)
}
pub fn fresh_key(random: [u8; 16]) -> String {
    String::new()
}
pub fn write_request(out: &mut Vec<u8>, request: &Request, key: &str, offered: &[Box<str>], forwarded: &Forwarded) {}
pub fn parse_response(
    bytes: &[u8],
    key: &str,
    offered: &[Box<str>],
) -> Result<Option<(Response, usize)>, ResponseError> {
    Ok(None)
}
pub fn write_switching(out: &mut Vec<u8>, key: &str, subprotocol: Option<&str>, headers: &[(&str, &str)]) {}
pub fn write_refusal(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)], body: &str) {}
