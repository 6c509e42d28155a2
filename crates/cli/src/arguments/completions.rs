//! The command line of `stream-grad completions`.

use clap::Args;
use clap_complete::Shell;

/// Of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bash:  stream-grad completions bash > ~/.local/share/bash-completion/completions/stream-grad
  zsh:   stream-grad completions zsh > ~/.zfunc/_stream-grad    (~/.zfunc is in $fpath)
  fish:  stream-grad completions fish > ~/.config/fish/completions/stream-grad.fish")]
pub struct CompletionsArguments {
    /// The shell
    pub shell: Shell,
}
