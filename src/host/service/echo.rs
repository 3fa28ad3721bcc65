//! The service of the host itself: an answer.
//!
//! The server has it always; [`Plugin::ping`](crate::host::Plugin::ping) asks it. What always holds:
//! what is answered is what was asked.

use super::error::ServiceProblem;
use super::frame::{MAX_REPLY_BYTES, OP_ECHO, STATUS_DONE, STATUS_UNKNOWN};
use super::session::{Request, Service, Session};

/// See the module.
#[derive(Debug)]
pub(super) struct Echo;

impl Service for Echo {
    fn serve(
        &mut self,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Result<(), ServiceProblem> {
        match request.op {
            OP_ECHO if request.payload.len() > MAX_REPLY_BYTES => Err(request.malformed()),
            OP_ECHO => session.reply(request, STATUS_DONE, request.payload),
            _ => session.reply(request, STATUS_UNKNOWN, &[]),
        }
    }
}
