// Reads docs/asyncapi.json with the official parser: node asyncapi.mjs FILE, in the folder that holds node_modules.
// Exit 0 when there is no error; the advice to take a newer AsyncAPI version is none.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { Parser } = createRequire(`${process.cwd()}/`)('@asyncapi/parser')
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'))
const ERROR = 0
const errors = diagnostics.filter(({ severity }) => severity === ERROR)
for (const { code, path, message } of errors) console.error(`${path.join('.')}: ${message} (${code})`)
if (!document || errors.length > 0) {
  console.error(`@asyncapi/parser không chấp nhận tài liệu, ${errors.length} lỗi / refuses the document, ${errors.length} errors`)
  process.exit(1)
}
const channels = document.channels().all().length
const messages = document.messages().all().length
if (channels === 0 || messages === 0) {
  console.error('Tài liệu không có kênh hay thông điệp nào / the document has no channels or no messages')
  process.exit(1)
}
console.log(`asyncapi.json: ${channels} channels, ${messages} messages, no error`)
