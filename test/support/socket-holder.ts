/**
 * Stands in for a socket unit and its service: listens, and runs a program with the socket, anew each time that it
 * ends, until it is told to stop itself.
 */
const program = `
use strict; use IO::Socket::INET; use POSIX ();
$^F = 100; # what is opened is passed on
my ($port, $pidFile, @command) = @ARGV;
my $socket = IO::Socket::INET->new(Listen => 4096, LocalAddr => "0.0.0.0", LocalPort => $port, ReuseAddr => 1) or die $!;
POSIX::dup2(fileno($socket), 3);
my ($stops, $child) = (0, 0);
$SIG{TERM} = sub { $stops = 1; kill "TERM", $child if $child };
until ($stops) {
  $child = fork;
  if ($child == 0) {
    @ENV{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} = ($$, 1, "gateway");
    exec @command;
  }
  open my $file, ">", $pidFile; print $file $child; close $file;
  while (waitpid($child, 0) == -1) {}
}
`;

/** The words before a command that runs it so; the number of the one that runs is in `pidFile`. */
export function holdingSocket(port: number, pidFile: string): string[] {
  return ["perl", "-e", program, String(port), pidFile];
}
