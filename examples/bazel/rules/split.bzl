"""A rule whose output is a directory that only the action knows the content of."""

def _split_words_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        inputs = [ctx.file.src],
        outputs = [out],
        arguments = [ctx.file.src.path, out.path],
        command = """
            set -eu
            mkdir -p "$2/by-letter/empty"
            for word in $(tr -cs 'A-Za-z' '\\n' < "$1" | tr 'A-Z' 'a-z' | sort -u); do
              letter=$(printf %.1s "$word")
              mkdir -p "$2/by-letter/$letter"
              echo "$word" >> "$2/by-letter/$letter/words.txt"
            done
        """,
        mnemonic = "SplitWords",
        progress_message = "Splitting %s by first letter" % ctx.file.src.short_path,
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

split_words = rule(
    implementation = _split_words_impl,
    attrs = {"src": attr.label(allow_single_file = True, mandatory = True)},
)
