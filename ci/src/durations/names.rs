//! What names of tests have in common, whichever runner wrote them.

/// A test without its parameters: `a.py::test` of `a.py::test[x/y]`.
pub fn function(name: &str) -> &str {
    let end = name.find(['[', '(']).filter(|&at| at > 0);
    &name[..end.unwrap_or(name.len())]
}

/// What a test is in: a file or class (`a.py` of `a.py::test[x]`, `org.A` of `org.A#test`), or a package
/// (`//a` of `//a:b`). Empty when the name has one part only.
pub fn module(name: &str) -> &str {
    let function = function(name);
    let end = function.rfind([':', '#', '/', '.', ' ']).unwrap_or(0);
    function[..end].trim_end_matches([':', '#', '/', '.', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_names_of_all_runners() {
        for (name, expected) in [
            ("tests/a/test_x.py::test_y[1.5/a::b]", "tests/a/test_x.py"),
            ("tests/a/test_x.py::Class::test_y", "tests/a/test_x.py::Class"),
            ("org.example.Suite#method(int)", "org.example.Suite"),
            ("org.example.Suite.method", "org.example.Suite"),
            ("Suite.Case/0", "Suite.Case"),
            ("//pkg/sub:target", "//pkg/sub"),
            ("kiln-ci junit::tests::case", "kiln-ci junit::tests"),
            ("alone", ""),
            ("[odd]", ""),
            ("", ""),
        ] {
            assert_eq!(module(name), expected, "{name}");
        }
        assert_eq!(function("a::t[x]"), "a::t");
    }
}
