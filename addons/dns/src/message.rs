//! Messages of the DNS (RFC 1035, with the extension of RFC 6891): which are taken, how an answer begins, and how it is
//! made to fit.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};

/// Bytes of a message's header.
const HEADER: usize = 12;
/// What fits into UDP for whoever does not say (RFC 1035, 4.2.1).
pub const UDP_SIZE: usize = 512;
/// What fits into TCP: its length is written in two bytes.
pub const TCP_SIZE: usize = 65_535;

/// The flag that tells an answer from a question.
const QR: u16 = 1 << 15;
/// "Recursion desired", which an answer repeats.
const RD: u16 = 1 << 8;

/// What became of a packet.
#[derive(Debug)]
pub enum Received {
    /// One question, to be answered.
    Question(Box<Message>),
    /// Answered with these bytes: it is no question that can be understood.
    Rejected(ResponseCode, Vec<u8>),
    /// Not answered at all: too short to be, or an answer itself. Two servers would answer each other forever.
    Ignored,
}

/// Reads a packet.
pub fn receive(packet: &[u8]) -> Received {
    let Some((header, _)) = packet.split_at_checked(HEADER) else { return Received::Ignored };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    if flags & QR != 0 {
        return Received::Ignored;
    }
    let reject = |code: ResponseCode| {
        let mut answer = vec![0; HEADER];
        answer[..2].copy_from_slice(&header[..2]);
        let flags = QR | (flags & (0xf << 11)) | (flags & RD) | u16::from(code.low());
        answer[2..4].copy_from_slice(&flags.to_be_bytes());
        Received::Rejected(code, answer)
    };
    match OpCode::from_u8((flags >> 11 & 0xf) as u8) {
        OpCode::Query | OpCode::Notify => {}
        _ => return reject(ResponseCode::NotImp),
    }
    // Counts that no question has are refused before anything is read by them.
    let [questions, answers, authorities, additionals] = [4, 6, 8, 10].map(word);
    if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
        return reject(ResponseCode::FormErr);
    }
    match Message::from_vec(packet) {
        Ok(message) if message.op_code == OpCode::Query => Received::Question(Box::new(message)),
        // There are no zones here that anybody could be told about.
        Ok(_) => reject(ResponseCode::NotImp),
        Err(error) => {
            tracing::debug!(%error, "a packet cannot be read");
            reject(ResponseCode::FormErr)
        }
    }
}

/// The beginning of an answer: who asked what, and nothing yet.
pub fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.id, question.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    // Whoever asks gets names of anywhere: what is not the cluster's is asked elsewhere.
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    answer.edns = question.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload()).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    answer
}

/// Bytes that whoever asked over UDP can take.
pub fn udp_size(question: &Message) -> usize {
    usize::from(question.max_payload()).max(UDP_SIZE)
}

/// The bytes of an answer, at most `limit` of them. Additional records are left out first, which nobody needs to be told
/// of (RFC 2181, 9); then as many answers as it takes, and the message says so.
///
/// # Errors
/// A record that cannot be written, which is a fault of whoever made it.
pub fn encode(mut answer: Message, limit: usize) -> Result<Vec<u8>, ProtoError> {
    let whole = answer.to_vec()?;
    if whole.len() <= limit && !cut(&whole, &answer) {
        return Ok(whole);
    }
    answer.additionals.clear();
    loop {
        let bytes = answer.to_vec()?;
        if bytes.len() <= limit && !cut(&bytes, &answer) {
            return Ok(bytes);
        }
        answer.metadata.truncation = true;
        if answer.answers.is_empty() {
            answer.authorities.clear();
            return answer.to_vec();
        }
        // By proportion: records of an answer are much alike.
        let fit = answer.answers.len() * limit / bytes.len();
        answer.answers.truncate(fit.min(answer.answers.len() - 1));
    }
}

/// Whether the encoder left something out itself, as it does beyond 64 KiB.
fn cut(bytes: &[u8], answer: &Message) -> bool {
    !answer.truncation && bytes.get(2).is_some_and(|flags| flags & 2 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use std::net::Ipv4Addr;

    fn question(payload: Option<u16>) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Web.prod.svc.cluster.local.").unwrap(), RecordType::A));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message
    }

    fn answer(question: &Message, records: usize, extra: usize) -> Message {
        let mut answer = reply(question, ResponseCode::NoError);
        let name = &question.queries[0].name;
        let record = |n: usize| {
            let address = Ipv4Addr::from(u32::try_from(n).unwrap());
            Record::from_rdata(name.clone(), 30, RData::A(A(address)))
        };
        answer.add_answers((0..records).map(record));
        answer.add_additionals((0..extra).map(record));
        answer
    }

    fn code(packet: &[u8]) -> Option<u8> {
        match receive(packet) {
            Received::Rejected(code, bytes) => {
                assert_eq!(bytes[..2], packet[..2], "the answer belongs to the question");
                assert_eq!(bytes[3] & 0xf, code.low());
                assert!(matches!(receive(&bytes), Received::Ignored), "an answer is not answered");
                Some(code.low())
            }
            Received::Question(_) => None,
            Received::Ignored => panic!("ignored: {packet:?}"),
        }
    }

    #[test]
    fn only_questions_are_answered() {
        let good = question(Some(1232)).to_vec().unwrap();
        assert_eq!(code(&good), None);
        for length in 0..HEADER {
            assert!(matches!(receive(&good[..length]), Received::Ignored));
        }
        let changed = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            packet
        };
        assert!(matches!(receive(&changed(2, 0x80)), Received::Ignored), "an answer");
        // STATUS, UPDATE, NOTIFY and what nobody has defined.
        for opcode in [2, 4, 5, 15] {
            assert_eq!(code(&changed(2, opcode << 3)), Some(4), "{opcode}");
        }
        for (at, value) in [(5, 0), (5, 2), (4, 1), (7, 2), (9, 2), (11, 3), (10, 255)] {
            assert_eq!(code(&changed(at, value)), Some(1), "{at} {value}");
        }
        // Cut off anywhere, or a name whose end is a pointer to itself.
        for length in HEADER..good.len() {
            assert_eq!(code(&good[..length]), Some(1), "{length}");
        }
        let mut pointing = good.clone();
        (pointing[12], pointing[13]) = (0xc0, 12);
        assert_eq!(code(&pointing), Some(1));
    }

    #[test]
    fn an_answer_repeats_the_question_as_it_was_written() {
        let question = question(Some(4096));
        let answer = reply(&question, ResponseCode::NXDomain);
        assert_eq!((answer.id, answer.recursion_desired, answer.recursion_available), (question.id, true, true));
        assert_eq!(answer.queries[0].name.to_ascii(), "Web.prod.svc.cluster.local.");
        assert_eq!(answer.edns.as_ref().map(Edns::max_payload), Some(4096));
        assert!(reply(&super::tests::question(None), ResponseCode::NoError).edns.is_none());
    }

    #[test]
    fn sizes() {
        assert_eq!(udp_size(&question(None)), 512);
        assert_eq!(udp_size(&question(Some(100))), 512);
        assert_eq!(udp_size(&question(Some(1232))), 1232);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        for (payload, records, extra) in
            [(None, 3, 3), (None, 20, 20), (None, 40, 0), (Some(1232), 300, 10), (Some(4096), 5_000, 0)]
        {
            let question = question(payload);
            let limit = udp_size(&question);
            let bytes = encode(answer(&question, records, extra), limit).unwrap();
            assert!(bytes.len() <= limit, "{payload:?} {records}: {}", bytes.len());
            let read = Message::from_vec(&bytes).expect("an answer is readable");
            assert_eq!(read.truncation, read.answers.len() < records, "{payload:?} {records}");
            assert!(read.truncation || read.additionals.len() == extra || read.additionals.is_empty());
            assert_eq!(read.edns.is_some(), payload.is_some(), "the extension stays, whatever goes");
            if read.truncation {
                // One more would not have fit by much: half of the room is not wasted.
                assert!(bytes.len() > limit / 2, "{} of {limit}", bytes.len());
            }
        }
        // Beyond what even TCP holds.
        let question = question(None);
        let bytes = encode(answer(&question, 10_000, 0), TCP_SIZE).unwrap();
        let read = Message::from_vec(&bytes).unwrap();
        assert!(read.truncation && bytes.len() <= TCP_SIZE && read.answers.len() > 1_000);
    }
}
