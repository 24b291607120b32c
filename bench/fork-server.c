/*
 * fork-server PORT PROGRAM: a process per request, as cheaply as C can. The body (by Content-Length, at most a pipe
 * full) goes to the program's input, its output is the answer. One thread, poll, kept-alive connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 256
struct call {
  int client, output; /* output: the child's, -1 while the request is still read */
  pid_t child;
  size_t in, out;
  char request[65536], reply[65536];
};
static struct call *calls[MOST];
static char *program;
extern char **environ;

static void start(struct call *c, const char *body, size_t length) {
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC) || pipe2(output, O_CLOEXEC)) exit(1);
  if (write(input[1], body, length) != (ssize_t)length) exit(1);
  close(input[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], 0);
  posix_spawn_file_actions_adddup2(&actions, output[1], 1);
  char *arguments[] = {program, NULL};
  if (posix_spawn(&c->child, program, &actions, NULL, arguments, environ)) exit(1);
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  close(output[1]);
  c->output = output[0];
}

static void finish(struct call *c) {
  char head[128];
  int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", c->out);
  close(c->output);
  waitpid(c->child, NULL, 0);
  (void)!send(c->client, head, n, MSG_MORE);
  (void)!write(c->client, c->reply, c->out);
  c->output = -1;
  c->in = c->out = 0;
}

/* False when the client has left. */
static int receive(struct call *c) {
  ssize_t n = read(c->client, c->request + c->in, sizeof c->request - 1 - c->in);
  if (n <= 0) return 0;
  c->in += n;
  c->request[c->in] = 0;
  char *end = strstr(c->request, "\r\n\r\n"), *length = strcasestr(c->request, "\r\ncontent-length:");
  if (!end) return 1;
  size_t body = length ? (size_t)atoll(length + 17) : 0;
  if (c->in >= (size_t)(end + 4 - c->request) + body) start(c, end + 4, body);
  return 1;
}

static int progress(struct call *c) {
  if (c->output < 0) return receive(c);
  ssize_t n = read(c->output, c->reply + c->out, sizeof c->reply - c->out);
  if (n > 0) c->out += n;
  else finish(c);
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  program = argv[2];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
    perror("fork-server");
    return 1;
  }
  for (;;) {
    struct pollfd polled[MOST + 1];
    struct call *of[MOST + 1];
    int count = 1;
    polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (int i = 0; i < MOST; i++)
      if (calls[i]) {
        of[count] = calls[i];
        polled[count++] = (struct pollfd){.fd = calls[i]->output < 0 ? calls[i]->client : calls[i]->output, .events = POLLIN};
      }
    poll(polled, count, -1);
    for (int i = 1; i < count; i++)
      if (polled[i].revents && !progress(of[i]))
        for (int k = 0; k < MOST; k++)
          if (calls[k] == of[i]) {
            close(of[i]->client);
            free(of[i]);
            calls[k] = NULL;
            break;
          }
    if (!(polled[0].revents & POLLIN)) continue;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (int k = 0; k < MOST && fd >= 0; k++)
      if (!calls[k]) {
        calls[k] = calloc(1, sizeof **calls);
        calls[k]->client = fd;
        calls[k]->output = -1;
        fd = -1;
      }
    if (fd >= 0) close(fd);
  }
}
