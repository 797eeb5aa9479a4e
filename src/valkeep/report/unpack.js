// What timeline.py packed: one deflated block of a header and columns stored by planes, back as typed arrays with times in seconds.
const HAS_VALUE = 8, HAS_RESULT = 16;

async function unpack(text) {
  const squeezed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  let at = 4 + size;
  const column = {};
  for (const [name, width, length] of data.columns) {
    const values = width === 8 ? new BigUint64Array(length) : new Uint32Array(length), raw = new Uint8Array(values.buffer);
    for (let plane = 0; plane < width; plane++) for (let i = 0; i < length; i++) raw[i * width + plane] = bytes[at++];
    column[name] = values;
  }
  const count = column.kind.length;
  const ops = { count, client: column.client, fn: column.function, node: column.node, key: column.key, error: column.error, kind: column.kind,
                at: new Float64Array(count), took: new Float64Array(count), value: column.value, result: column.result,
                valueAt: new Uint32Array(count), resultAt: new Uint32Array(count) };
  const lastValue = new Map(), lastResult = new Map();
  let microseconds = 0, values = 0, results = 0;
  for (let i = 0; i < count; i++) {
    microseconds += column.invoked[i];
    ops.at[i] = data.start + microseconds / 1e6;
    ops.took[i] = column.latency[i] ? (column.latency[i] - 1) / 1e6 : -1;
    if (ops.kind[i] & HAS_VALUE) {
      column.value[values] += lastValue.get(ops.client[i]) ?? 0n;  // modulo 2^64, as it was written
      lastValue.set(ops.client[i], column.value[values]);
      ops.valueAt[i] = values++;
    }
    if (ops.kind[i] & HAS_RESULT) {
      column.result[results] += lastResult.get(ops.key[i]) ?? 0n;
      lastResult.set(ops.key[i], column.result[results]);
      ops.resultAt[i] = results++;
    }
  }
  data.faults = data.spans.filter((span) => span.name);
  return [data, ops];
}
