// In place of the real one, which is compiled: Janus is reached by WebSocket here, and only its Unix sockets need it.
exports.createSocket = () => {
  throw new Error("no Unix sockets here");
};
