//! Classic BPF, as much of it as a filter of system calls needs.

/// A comparison: its opcode, and the number that is compared with.
#[derive(Clone, Copy)]
pub(super) struct Test(u32, u32);

pub(super) fn equal(value: u32) -> Test {
    Test(libc::BPF_JEQ, value)
}

pub(super) fn greater_or_equal(value: u32) -> Test {
    Test(libc::BPF_JGE, value)
}

/// The test whether any of these bits is set.
pub(super) fn has_bits(bits: u32) -> Test {
    Test(libc::BPF_JSET, bits)
}

#[derive(Default)]
pub(super) struct Program(Vec<libc::sock_filter>);

impl Program {
    /// The word at this offset of `struct seccomp_data` is looked at from here on.
    pub(super) fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    }

    pub(super) fn answer(&mut self, action: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    }

    /// Adds `then`, which runs only where the test holds. It has to end in an answer: the value
    /// that it has loaded is not the one that the rest of the program looks at.
    pub(super) fn when(&mut self, Test(code, value): Test, then: Self) {
        let code = libc::BPF_JMP | code | libc::BPF_K;
        if let Ok(length) = u8::try_from(then.0.len()) {
            self.push(code, 0, length, value);
        } else {
            // Conditional jumps are short, so a longer body is jumped over by another one.
            let length = u32::try_from(then.0.len()).unwrap_or(u32::MAX);
            self.push(code, 1, 0, value);
            self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, length);
        }
        self.append(then);
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn into_filter(self) -> Vec<libc::sock_filter> {
        self.0
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        self.0.push(libc::sock_filter { code, jt, jf, k });
    }

    /// Runs the program as the kernel would: its answer, and the number of steps until then.
    #[cfg(test)]
    pub(super) fn run(&self, data: &[u8]) -> (u32, usize) {
        let (mut at, mut loaded) = (0, 0);
        for steps in 1.. {
            let libc::sock_filter { code, jt, jf, k } = self.0[at];
            let code = u32::from(code);
            at += 1;
            let holds = match code & 0xf0 {
                libc::BPF_JEQ => loaded == k,
                libc::BPF_JGE => loaded >= k,
                _ => loaded & k != 0,
            };
            match code & 0x07 {
                libc::BPF_RET => return (k, steps),
                libc::BPF_LD => {
                    let from = k as usize;
                    loaded = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                _ if code & 0xf0 == libc::BPF_JA => at += k as usize,
                _ => at += usize::from(if holds { jt } else { jf }),
            }
        }
        unreachable!("a program only goes forward")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_length_is_jumped_over() {
        for length in [1, 2, 255, 256, 300] {
            let mut body = Program::default();
            for _ in 1..length {
                body.load(0);
            }
            body.answer(7);
            let mut program = Program::default();
            program.load(0);
            program.when(equal(5), body);
            program.answer(9);
            assert_eq!(program.run(&5_u32.to_ne_bytes()).0, 7, "{length}");
            assert_eq!(program.run(&6_u32.to_ne_bytes()).0, 9, "{length}");
        }
    }
}
