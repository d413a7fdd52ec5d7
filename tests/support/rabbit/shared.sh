# The node that tests share, from its start until nobody has used it for a while:
#
#   bash -c THIS shared DIRECTORY IDLE_S EPMD_PORT COMMAND…   with the locked file `life` as its input
#
# The lock on `life` is handed on to the node and its port mapper, and goes when the last of them has ended. Who uses the
# node holds the file `users` shared. Who holds `turn` may start it, end it, or begin to use it.
set -u
directory=$1 idle_s=$2 epmd_port=$3
shift 3
exec 9<&0 </dev/null

end() {
  kill -KILL "${node:-$epmd}" "$epmd" 2>/dev/null
  wait
  rm -rf "$directory/node"
  exit "$1"
}
trap 'end 1' TERM INT HUP

# Both die with this shell, however it ends.
setpriv --pdeathsig KILL -- epmd -port "$epmd_port" -address 127.0.0.1 &
epmd=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$epmd_port") 2>/dev/null; do
  kill -0 "$epmd" || end 1
  sleep 0.02 9<&-
done
setpriv --pdeathsig KILL -- "$@" &
node=$!

idle=0
# Without its directory nobody finds it.
while kill -0 "$node" && kill -0 "$epmd" && [ -e "$directory/users" ]; do
  sleep 1 9<&-
  if flock --nonblock "$directory/users" true 9<&-; then idle=$((idle + 1)); else idle=0; fi
  [ "$idle" -ge "$idle_s" ] || continue
  exec 8<"$directory/turn"
  flock 8
  # Who came meanwhile is there to stay; who comes now waits, and starts another node.
  if flock --nonblock "$directory/users" true 9<&-; then end 0; fi
  exec 8<&-
  idle=0
done
end 1
