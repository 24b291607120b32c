/*
 * start-time PORT PROGRAM ARGUMENT…: starts the program and prints the milliseconds until its first 200 on
 * /_/health, asked for on fresh connections every 30 µs; then kills it. Adds about 0.1 ms of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int is_healthy(const struct sockaddr_in *address) {
  static const char request[] = "GET /_/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  char answer[1024];
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), healthy = 0;
  if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 &&
      write(fd, request, sizeof request - 1) > 0)
    healthy = read(fd, answer, sizeof answer) > 12 && !memcmp(answer + 9, "200", 3);
  close(fd);
  return healthy;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  prctl(PR_SET_TIMERSLACK, 1); /* else every pause takes 50 µs more */
  double begin = now();
  pid_t child = vfork();
  if (child == 0) {
    execv(argv[2], argv + 2);
    _exit(127);
  }
  while (!is_healthy(&address)) {
    if (now() - begin > 10000 || waitpid(child, NULL, WNOHANG) == child) {
      fprintf(stderr, "%s never answers\n", argv[2]);
      return 1;
    }
    nanosleep(&(struct timespec){.tv_nsec = 30000}, NULL);
  }
  printf("%.3f\n", now() - begin);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return 0;
}
